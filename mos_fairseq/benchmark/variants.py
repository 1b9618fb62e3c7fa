"""The models to compare, all with random weights, and their batches."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from fairseq import utils
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer.transformer_legacy import base_architecture
from fairseq.optim.adam import Adam
from fairseq.sequence_generator import SequenceGenerator
from torch import nn

from mos_fairseq.benchmark.options import SpeedOptions
from mos_fairseq.criterions import LabelSmoothedCrossEntropyMosCriterion
from mos_fairseq.errors import InputError
from mos_fairseq.export import stock_sizes
from mos_fairseq.models import TransformerMosConfig, TransformerMosModel, placeholder_dictionary
from mos_fairseq.models.switches import without_attention
from mos_fairseq.search_space import SearchSpace

LOW_RANK = {
    "shared, R 8": ("layer", 1, 8),
    "layer, R 8": ("layer", 2, 8),
    "layer, R 32": ("layer", 2, 32),
    "rank, R 8": ("rank", 2, 8),
    "rank, R 32": ("rank", 2, 32),
    "neuron, R 8": ("neuron", 2, 8),
}
"""Supernets with experts of low rank: routing, number of experts, rank. A single one, ``shared``, has no router."""
_PAD, _EOS = 1, 2


class Variants:
    """Build models, training steps and translations of one search space.

    Stock fairseq's ``transformer`` has attention as wide as its embeddings, attends to the last encoder layer, and has
    one size for all layers. It is compared with a supernet whose ``qkv_dim`` and span are changed to match
    (``stock_space``), and which has no ranks, so that the largest subnet is the same network.
    """

    def __init__(self, space: SearchSpace, options: SpeedOptions) -> None:
        self.space, self.options = space, options
        self.words = placeholder_dictionary(options.vocab_size)
        self._task = SimpleNamespace(source_dictionary=self.words, target_dictionary=self.words)

    @cached_property
    def stock_space(self) -> SearchSpace:
        """Return the space with its attention width and span changed to stock fairseq's, and without ranks.

        Raises:
            InputError: the sides' largest sizes differ where stock fairseq has one.
        """
        largest, family = self.space.largest(), self.space.family
        first = family.stacks[0].width.key
        equal = [(stack.width.key, largest[stack.width.key], largest[first]) for stack in family.stacks]
        values = self.space.to_dict()
        for stack in family.stacks:
            if stack.feed_forward.rank is not None:
                values.pop(stack.feed_forward.rank.key, None)
            heads = largest[stack.attentions[0].heads.key][0]
            equal += [(block.heads.key, largest[block.heads.key][0], heads) for block in stack.attentions]
            for block in stack.attentions:
                if block.span is not None:
                    values[block.span.key] = [min(block.span.codes or (1,))]
                if block.inner is not None:
                    values.pop(block.inner.key, None)
        for key, value, other in equal:
            if value != other:
                raise InputError(f"{key} is {value} at most: to be compared with stock fairseq it has to be {other}")
        fixed, per_head = family.constants
        values.pop(per_head, None)
        return SearchSpace.from_dict(values | {fixed: largest[first]})

    def scaled(self, factor: float) -> SearchSpace:
        """Return the space with every width multiplied by ``factor``; numbers of layers and heads stay.

        Raises:
            InputError: no such space exists, for example because heads do not divide the width.
        """
        family, values = self.space.family, self.space.to_dict()
        keys = list(family.constants)
        for stack in family.stacks:
            keys += [stack.width.key, stack.feed_forward.size.key]
            keys += [stack.feed_forward.rank.key] if stack.feed_forward.rank is not None else []
            keys += [block.inner.key for block in stack.attentions if block.inner is not None]
        for key in dict.fromkeys(keys):
            if isinstance(values.get(key), list):
                values[key] = list(dict.fromkeys(int(factor * value) for value in values[key]))
            elif key in values:
                values[key] = int(factor * values[key])
        return SearchSpace.from_dict(values)

    def stock(self) -> nn.Module:
        """Return fairseq's own ``transformer`` in the sizes of ``stock_space``'s largest subnet."""
        found = stock_sizes(self.stock_space.largest())
        sizes: dict[str, Any] = {}
        for stack in self.stock_space.family.stacks:
            sizes |= found[stack.name].options(stack)
        positions = {"max_source_positions": 1024, "max_target_positions": 1024}
        args = Namespace(share_all_embeddings=True, dropout=0.1, **sizes, **positions)
        base_architecture(args)
        torch.manual_seed(1)
        return TransformerModel.build_model(args, self._task).to(self.options.device)

    def supernet(self, mixture: str, num_experts: int = 2, space: SearchSpace | None = None) -> TransformerMosModel:
        """A supernet of the space (or another one) with the largest subnet active.

        Args:
            mixture: a routing; or of :data:`LOW_RANK`, which has its own number of experts.
        """
        return self._supernet(mixture, num_experts, space or self.space).to(self.options.device)

    def num_parameters(self, mixture: str, space: SearchSpace | None = None) -> int:
        """Of such a supernet; nothing is allocated."""
        with torch.device("meta"):
            return sum(p.numel() for p in self._supernet(mixture, 2, space or self.space).parameters())

    def _supernet(self, mixture: str, num_experts: int, space: SearchSpace) -> TransformerMosModel:
        routing, number, rank = LOW_RANK.get(mixture, (mixture, num_experts, 0))
        cfg = TransformerMosConfig(
            search_space=space.dumps(),
            mos_routing=routing,
            num_experts=number,
            expert_rank=rank,
            share_all_embeddings=True,
            max_source_positions=1024,
            max_target_positions=1024,
        )
        torch.manual_seed(1)
        return TransformerMosModel.from_search_space(cfg, space, self.words, self.words)

    def batch(self, tokens: int | None = None) -> dict[str, Any]:
        """Return a training batch as fairseq collates it: sources padded on the left, targets on the right."""
        longest = self.options.length
        count = max(1, round((tokens or self.options.tokens) / (0.875 * longest)))
        generator = torch.Generator().manual_seed(1)
        lengths = torch.randint(-(-3 * longest // 4), longest + 1, (2, count), generator=generator)
        lengths[:, 0] = longest
        source, target = torch.randint(4, self.options.vocab_size, (2, count, longest), generator=generator)
        places = torch.arange(longest)
        source[places < longest - lengths[0, :, None]] = _PAD
        target[places == lengths[1, :, None] - 1] = _EOS
        target[places >= lengths[1, :, None]] = _PAD
        previous = target.roll(1, 1)
        previous[:, 0] = _EOS
        net_input = {"src_tokens": source, "src_lengths": lengths[0], "prev_output_tokens": previous}
        counts = {"ntokens": int(lengths[1].sum()), "nsentences": count}
        return self._there({"net_input": net_input, "target": target, **counts})

    def _there(self, sample: dict[str, Any]) -> dict[str, Any]:
        return utils.apply_to_sample(lambda tensor: tensor.to(self.options.device), sample)

    def training_step(
        self, model: nn.Module, optimizer: str | None, tokens: int | None = None, precision: str = "fp32"
    ) -> Callable[[], object]:
        """Return a function for one update of ``model`` by ``adam`` (fairseq's) or ``adam_fused`` (ours).
        With None as ``optimizer`` it computes forward and backward only.

        Args:
            precision: ``amp`` computes under autocast, in fp16 on a GPU and bf16 on a CPU. ``bf16`` converts the model
                to bf16 and gives the optimizer fp32 copies of the parameters, as fairseq's ``--bf16`` does.
        """
        model.train()
        if precision == "bf16":
            model.to(torch.bfloat16)
        sample, criterion, parameters = self.batch(tokens), self._criterion(model), list(model.parameters())
        copies = [nn.Parameter(p.detach().float()) for p in parameters] if precision == "bf16" else parameters
        make = {None: None, "adam": Adam, "adam_fused": _fused}[optimizer]
        adam = make(copies, lr=1e-4, betas=(0.9, 0.98)) if make else None
        kind = torch.device(self.options.device).type
        dtype = torch.bfloat16 if kind == "cpu" else torch.float16

        def step() -> None:
            for parameter in parameters:
                parameter.grad = None
            with torch.autocast(kind, dtype) if precision == "amp" else nullcontext():
                loss = criterion(model, sample)[0]
            loss.backward()
            if adam is not None:
                _step(adam, parameters, copies)

        return step

    def _criterion(self, model: nn.Module):
        ours = isinstance(model, TransformerMosModel)
        kind = LabelSmoothedCrossEntropyMosCriterion if ours else LabelSmoothedCrossEntropyCriterion
        return kind(self._task_of_criterion, False, 0.1)

    @property
    def _task_of_criterion(self) -> SimpleNamespace:
        return SimpleNamespace(target_dictionary=self.words)

    def sources(self, batch_size: int) -> dict[str, Any]:
        """Return sentences to translate; in a batch of several, every second one is shorter."""
        generator, length = torch.Generator().manual_seed(2), self.options.length
        tokens = torch.randint(4, self.options.vocab_size, (batch_size, length), generator=generator)
        tokens[1::2, : length // 6] = _PAD
        tokens[:, -1] = _EOS
        return self._there({"net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(_PAD).sum(1)}})

    def translation(self, model: nn.Module, beam: int, batch_size: int) -> Callable[[], object]:
        """Return a function that runs fairseq's beam search of exactly ``length`` tokens a sentence."""
        model.eval()
        longest = self.options.length - 1
        generator = SequenceGenerator(
            [model], self.words, beam_size=beam, max_len_a=0, max_len_b=longest, min_len=longest
        )
        sample = self.sources(batch_size)

        @torch.inference_mode()
        def translate() -> object:
            with without_attention(model):
                return generator.generate([model], sample)

        return translate


@torch.no_grad()
def _step(adam: torch.optim.Optimizer, parameters: list[nn.Parameter], copies: list[nn.Parameter]) -> None:
    """Take a step of the optimizer of ``copies``, which are the parameters themselves or fp32 copies."""
    others = [(p, copy) for p, copy in zip(parameters, copies, strict=True) if copy is not p]
    for parameter, copy in others:
        copy.grad = None if parameter.grad is None else parameter.grad.float()
    adam.step()
    for parameter, copy in others:
        parameter.copy_(copy)


def _fused(parameters, **config: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, weight_decay=0.0, fused=True, **config)
