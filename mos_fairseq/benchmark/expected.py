"""Compute the expected memory of training from sizes alone.

An update's memory peaks at one of two moments. While the loss is computed, memory holds the parameters, the optimizer's
state and the activations saved by every layer. At the end of the backward pass, all gradients have replaced the
activations. (In between, activations are freed as gradients arrive, so the sum lies between both.) If several subnets
train in an update (``accumulating``), gradients of earlier ones are also present at the first moment.
"""

from __future__ import annotations

from dataclasses import dataclass

from mos_fairseq.search_space import Stack, Subnet

# bytes per parameter: the parameter in the computing type and its fp32 copy, Adam's moments; and its gradient
_STATES = {"fp32": 4 + 8, "amp": 4 + 8, "fp16": 2 + 4 + 8, "bf16": 2 + 4 + 8}
_GRADIENTS = {"fp32": 4, "amp": 4, "fp16": 2 + 4, "bf16": 2 + 4}
_WIDTH = {"fp32": 4, "amp": 2, "fp16": 2, "bf16": 2}  # of an activation


@dataclass(frozen=True)
class TrainingBatch:
    """One training batch.

    Args:
        source, target: tokens of each side, padding included.
        vocab_size: entries of the target dictionary.
        has_dropout: whether ``dropout`` is on, so that its masks are saved.
        precision: fp32, amp, fp16 or bf16.
        on_gpu: on a GPU a mask takes one byte, and the loss two more arrays of logits.
        accumulating: whether several subnets train in one update.
    """

    source: int
    target: int
    vocab_size: int
    has_dropout: bool = True
    precision: str = "fp32"
    on_gpu: bool = False
    accumulating: bool = False

    def tokens(self, stack: Stack) -> int:
        """Return the number of tokens in a stack's input."""
        return {"source": self.source, "target": self.target}[stack.tokens]


def expected_bytes(num_parameters: int, subnet: Subnet, batch: TrainingBatch, kept_weights: int = 0) -> int:
    """Return the peak memory of an update of ``subnet`` in a model of ``num_parameters``, without attention dropout.

    Args:
        kept_weights: elements of merged weights that are saved for the backward pass.
    """
    width = _WIDTH[batch.precision]
    states, gradients = (table[batch.precision] * num_parameters for table in (_STATES, _GRADIENTS))
    saved = _activations(subnet, batch) + width * kept_weights
    # logits in the model's type, and log-probabilities in fp32
    loss = batch.target * batch.vocab_size * (width + 4)
    at_loss = states + saved + loss + (gradients if batch.accumulating else 0)
    # a shared table has the gradients of two users beside their sum
    tables = 2 * batch.vocab_size * max(subnet.width(stack.name) for stack in subnet.family.stacks) * width
    return max(at_loss, states + gradients + tables)


def kept_weights(subnet: Subnet, limit: int) -> int:
    """Return the number of elements of the merged feed-forward weights of ``subnet`` with fewer than ``limit`` elements
    each; larger ones are merged again in the backward pass."""
    sizes: list[int] = []
    for layer in subnet.all_layers:
        factors = [layer.rank * layer.width, layer.rank * layer.ffn]
        sizes += factors if layer.rank else [layer.matrix_size]
    return sum(2 * size for size in sizes if size < limit)


def _activations(subnet: Subnet, batch: TrainingBatch) -> int:
    """Return the bytes that autograd saves in all layers for the backward pass."""
    width, total = _WIDTH[batch.precision], 0
    norm = 4 if batch.precision == "amp" else width  # autocast normalises in fp32
    mask = (1 if batch.on_gpu else width) if batch.has_dropout else 0
    memories: dict[int, int] = {}
    for stack in subnet.family.stacks:
        tokens, d = batch.tokens(stack), subnet.width(stack.name)
        total += tokens * d * mask  # dropout of the embeddings
        for layer in subnet.layers(stack.name):
            each = 0
            for attention in layer.attentions.values():
                # inputs of projection and norm, mask; query or query, key and value, context, heads' log-sums
                each += d * (width + norm + mask) + attention.inner * width * (2 if attention.is_cross else 4)
                each += 4 * attention.heads
                if attention.is_cross:
                    read = batch.source * attention.span
                    total += read * 2 * attention.inner * width  # keys and values
                    memories[attention.span] = read * attention.memory
            each += d * (width + norm + mask) + (layer.ffn + 2 * layer.rank) * width
            total += tokens * each
        total += tokens * d * width  # input of the output projection, or input of the other stack
    # several encoder outputs, concatenated
    return total + sum(size * width for span, size in memories.items() if span > 1)
