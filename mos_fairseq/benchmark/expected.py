"""The memory that training should take, from sizes alone.

An update's peak is at one of two moments. When the loss is computed, there are the parameters, the optimizer's state,
and what the backward pass needs of every layer; when the backward pass ends, there are all gradients in its place. (In
between, activations go as gradients come, so that the sum lies between both.) With several subnets an update, gradients
of the others are there at the first moment, too: ``accumulating``.
"""

from __future__ import annotations

from dataclasses import dataclass

from mos_fairseq.search_space import Stack, Subnet

# bytes of each parameter: itself in the type that is computed with and its fp32 copy, Adam's moments; and its gradient
_STATES = {"fp32": 4 + 8, "amp": 4 + 8, "fp16": 2 + 4 + 8, "bf16": 2 + 4 + 8}
_GRADIENTS = {"fp32": 4, "amp": 4, "fp16": 2 + 4, "bf16": 2 + 4}
_WIDTH = {"fp32": 4, "amp": 2, "fp16": 2, "bf16": 2}  # of an activation


@dataclass(frozen=True)
class TrainingBatch:
    """What is trained on at once.

    Args:
        source, target: tokens of each side, padding included.
        vocab_size: entries of the target dictionary.
        has_dropout: whether ``dropout`` is on, whose masks are kept.
        precision: fp32, amp, fp16 or bf16.
        on_gpu: there a mask takes a byte, and the loss two more arrays of logits.
        accumulating: whether several subnets train in an update.
    """

    source: int
    target: int
    vocab_size: int
    has_dropout: bool = True
    precision: str = "fp32"
    on_gpu: bool = False
    accumulating: bool = False

    def tokens(self, stack: Stack) -> int:
        """Of a stack's input."""
        return {"source": self.source, "target": self.target}[stack.tokens]


def expected_bytes(num_parameters: int, subnet: Subnet, batch: TrainingBatch, kept_weights: int = 0) -> int:
    """Peak memory of an update of ``subnet`` in a model of ``num_parameters``, without attention dropout.

    Args:
        kept_weights: elements of merged weights that are kept for the backward pass.
    """
    width = _WIDTH[batch.precision]
    states, gradients = (table[batch.precision] * num_parameters for table in (_STATES, _GRADIENTS))
    saved = _activations(subnet, batch) + width * kept_weights
    # logits as the model gives them, and log-probabilities in fp32
    loss = batch.target * batch.vocab_size * (width + 4)
    at_loss = states + saved + loss + (gradients if batch.accumulating else 0)
    # of a shared table, the gradients of two users beside their sum
    tables = 2 * batch.vocab_size * max(subnet.width(stack.name) for stack in subnet.family.stacks) * width
    return max(at_loss, states + gradients + tables)


def kept_weights(subnet: Subnet, limit: int) -> int:
    """Elements of the merged feed-forward weights of ``subnet`` that have fewer than ``limit``; larger ones are merged
    again in the backward pass."""
    sizes = [layer.width * layer.ffn for stack in subnet.family.stacks for layer in subnet.layers(stack.name)]
    return sum(2 * size for size in sizes if size < limit)


def _activations(subnet: Subnet, batch: TrainingBatch) -> int:
    """Bytes of what autograd saves of all layers, for the backward pass."""
    width, total = _WIDTH[batch.precision], 0
    norm = 4 if batch.precision == "amp" else width  # autocast normalises in fp32
    mask = (1 if batch.on_gpu else width) if batch.has_dropout else 0
    memories: dict[int, int] = {}
    for stack in subnet.family.stacks:
        tokens, d = batch.tokens(stack), subnet.width(stack.name)
        total += tokens * d * mask  # of the embeddings
        for layer in subnet.layers(stack.name):
            each = 0
            for attention in layer.attentions.values():
                # input of the projection, of the norm, mask; query or query, key and value, context, log-sums of heads
                each += d * (width + norm + mask) + attention.inner * width * (2 if attention.is_cross else 4)
                each += 4 * attention.heads
                if attention.is_cross:
                    read = batch.source * attention.span
                    total += read * 2 * attention.inner * width  # keys and values
                    memories[attention.span] = read * attention.memory
            each += d * (width + norm + mask) + layer.ffn * width
            total += tokens * each
        total += tokens * d * width  # input of the output projection, or what the other stack reads
    # several encoder outputs, one behind the other
    return total + sum(size * width for span, size in memories.items() if span > 1)
