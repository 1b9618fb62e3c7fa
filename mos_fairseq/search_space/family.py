"""What an architecture family is: stacks of layers, layers of blocks, blocks of elastic sizes.

A family is declared once (``families/``). Read off the declaration are the keys and their order, what a value may be,
the size of a search space, its enumeration, drawing and genes, the arch encoding, a layer's sizes, cost, the latency
predictor's terms and a subnet's line in the log. Ints only: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mos_fairseq.sizes import AttentionSizes, LayerSizes

Means = Mapping[str, float]
"""Each dimension's value, or the mean over the present layers, by key."""

Terms = dict[str, float]
"""Terms that latency is nearly linear in, by name."""


@dataclass(frozen=True)
class Dimension:
    """One elastic size.

    Args:
        key: its YAML key, where there is one fairseq's option name.
        label: its name in ``Subnet.summary``; empty for widths and depths.
        codes: what a value stands for, where values are codes (ascending like what they stand for).
        allowed: says what the codes mean, for messages.
        most: the largest value allowed; None for no limit.
        optional: a space may leave it out. Then it draws, encodes, costs and prints nothing, so that spaces,
            checkpoints and draws from before the dimension stay what they are.
    """

    key: str
    label: str = ""
    codes: Mapping[int, int] | None = field(default=None, hash=False)
    allowed: str = ""
    most: int | None = None
    optional: bool = False

    def amount(self, value: int) -> int:
        """What ``value`` stands for: itself, or its code's meaning."""
        return self.codes[value] if self.codes else value


@dataclass(frozen=True)
class FeedForward:
    """Two linears with an activation between: d -> ``size`` -> d, and a layer norm."""

    size: Dimension
    norms: int = 1

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """In the order of keys."""
        return (self.size,)

    def cost(self, layer: LayerSizes, length: int, memory_length: int) -> tuple[int, int]:
        """(parameters, multiply-accumulates) for ``length`` tokens, the norm left out."""
        d, f = layer.width, layer.ffn
        return 2 * d * f + f + d, 2 * length * d * f

    def terms(self, mean: Means, stack: Stack, family: Family) -> Terms:
        """Products of means that its time is nearly linear in."""
        depth, width, size = stack.depth.key, stack.width.key, self.size.key
        return _products(mean, (depth, size), (depth, size, width))


@dataclass(frozen=True)
class Attention:
    """Multi-head attention and a layer norm.

    Args:
        name: of the module in a layer: ``self_attn``, ``encoder_attn``.
        heads: number of heads.
        reads: the stack whose outputs it attends to; None for its own input.
        span: how many of that stack's last outputs it reads, concatenated along time; None for the last.
        inner: q, the width of queries, keys and values, where a space lets it vary by layer. A space that does not name
            it fixes q by one of the family's constants.
    """

    name: str
    heads: Dimension
    reads: str | None = None
    span: Dimension | None = None
    inner: Dimension | None = None
    norms: int = 1

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """In the order of keys."""
        return tuple(d for d in (self.heads, self.span, self.inner) if d is not None)

    def cost(self, layer: LayerSizes, length: int, memory_length: int) -> tuple[int, int]:
        """(parameters, multiply-accumulates) for ``length`` queries over ``memory_length`` tokens an output."""
        d, sizes = layer.width, layer.attentions[self.name]
        q, memory = sizes.inner, sizes.memory
        n = sizes.span * memory_length
        params = (d + 1) * q + 2 * (memory + 1) * q + (q + 1) * d
        macs = 2 * length * d * q + 2 * n * memory * q  # query and output, key and value
        return params, macs + 2 * length * n * q  # scores, and their product with the values

    def terms(self, mean: Means, stack: Stack, family: Family) -> Terms:
        """Products of means that its time is nearly linear in."""
        depth, width, heads = stack.depth.key, stack.width.key, self.heads.key
        found = _products(mean, (depth, heads), (depth, heads, width))
        if self.span is not None and self.reads is not None:
            span, memory = self.span.key, family.stack(self.reads).width.key
            found |= _products(mean, (depth, span), (depth, span, memory), (depth, span, heads))
        if self.inner is not None and self.inner.key in mean:
            found |= _products(mean, (depth, self.inner.key), (depth, self.inner.key, width))
        return found


def _products(mean: Means, *names: tuple[str, ...]) -> Terms:
    found = {}
    for keys in names:
        product = 1.0
        for key in keys:
            product *= mean[key]
        found["*".join(keys)] = product
    return found


@dataclass(frozen=True)
class Stack:
    """Layers of one kind.

    Args:
        name: of the module in the model, and of fairseq's option prefix: ``encoder``, ``decoder``.
        label: its name in ``Subnet.summary``.
        blocks: of each layer, in the order of keys, which need not be that of the forward pass.
        tokens: whose length and positions it works on, ``source`` or ``target``.
        causal: a position sees none after it.
        normalize_before: whether layer norms come before their sublayers; None where that is an option of the model.
    """

    name: str
    label: str
    width: Dimension
    depth: Dimension
    blocks: tuple[FeedForward | Attention, ...]
    tokens: str = "source"
    causal: bool = False
    normalize_before: bool | None = None

    @cached_property
    def layer_dimensions(self) -> tuple[Dimension, ...]:
        """Dimensions with a value for each layer; one that several blocks share comes once."""
        return tuple(dict.fromkeys(d for block in self.blocks for d in block.dimensions))

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """Its attention blocks."""
        return tuple(block for block in self.blocks if isinstance(block, Attention))

    @property
    def feed_forward(self) -> FeedForward:
        """Its feed-forward block."""
        return next(block for block in self.blocks if isinstance(block, FeedForward))


@dataclass(frozen=True)
class Family:
    """One kind of architecture.

    Args:
        name: as in a search space's key ``family``.
        stacks: from the input to the output.
        output: the stack whose last output is projected to the vocabulary.
        constants: keys that fix q of every attention without an elastic ``inner``, of which exactly one is then set:
            q itself, or the width of a head.
        objectives: by what its subnets may be judged.
        workloads: what may be timed of them, the usual one first (see ``mos_fairseq.latency.workloads``).
        term_order: names of the latency predictor's terms that come first, in this order; the others follow as the
            blocks give them. Files of predictors hold weights by position.
    """

    name: str
    stacks: tuple[Stack, ...]
    output: str
    workloads: tuple[str, ...]
    objectives: tuple[str, ...] = ("loss",)
    constants: tuple[str, str] = ("qkv_dim", "head_dim")
    term_order: tuple[str, ...] = ()

    def stack(self, name: str) -> Stack:
        """The stack of that name."""
        return next(stack for stack in self.stacks if stack.name == name)

    @cached_property
    def scalars(self) -> tuple[Dimension, ...]:
        """Dimensions with one value per subnet: widths, then depths."""
        return tuple(s.width for s in self.stacks) + tuple(s.depth for s in self.stacks)

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """In the one order of drawing, enumerating, genes and printing."""
        return self.scalars + tuple(d for s in self.stacks for d in s.layer_dimensions)

    @cached_property
    def encoded(self) -> tuple[Dimension, ...]:
        """In the order of the arch encoding: stack by stack."""
        return tuple(d for s in self.stacks for d in (s.width, s.depth, *s.layer_dimensions))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """All keys of a space or a subnet: dimensions, then constants."""
        return tuple(d.key for d in self.dimensions) + self.constants

    @cached_property
    def options(self) -> frozenset[str]:
        """Names of those options of models, cost and latency that depend on which stacks there are."""
        names = {f"{stack.name}_learned_pos" for stack in self.stacks}
        names |= {f"{stack.name}_normalize_before" for stack in self.stacks if stack.normalize_before is None}
        for tokens in {stack.tokens for stack in self.stacks}:
            names |= {f"max_{tokens}_positions", {"source": "src_len", "target": "tgt_len"}[tokens]}
        return frozenset(names | ({"tgt_vocab_size", "share_all_embeddings"} if len(self.stacks) > 1 else set()))

    @cached_property
    def by_key(self) -> dict[str, Dimension]:
        """Dimensions by key."""
        return {d.key: d for d in self.dimensions}

    @cached_property
    def owners(self) -> dict[str, Stack]:
        """The stack for whose layers a key has values, by key; scalars have none."""
        return {d.key: stack for stack in self.stacks for d in stack.layer_dimensions}

    @cached_property
    def read_by_span(self) -> dict[str, Stack]:
        """The stack whose outputs a span counts, by the span's key."""
        found = {}
        for stack in self.stacks:
            for block in stack.attentions:
                if block.span is not None and block.reads is not None:
                    found[block.span.key] = self.stack(block.reads)
        return found

    def layers(self, stack: Stack, values: Mapping[str, object]) -> tuple[LayerSizes, ...]:
        """The sizes of each present layer of ``stack``, from a subnet's ``values`` by key.

        This is the only place that puts per-layer values together. A span is clamped to the depth of what it reads: an
        encoder of 2 layers has no third output, and repeating one would only double its weight in the softmax.
        """
        found = []
        for index in range(values[stack.depth.key]):
            ffn, attentions = 0, {}
            for block in stack.blocks:
                if isinstance(block, FeedForward):
                    ffn = values[block.size.key][index]
                else:
                    attentions[block.name] = self._attention(block, stack, values, index)
            found.append(LayerSizes(values[stack.width.key], ffn, attentions))
        return tuple(found)

    def _attention(self, block: Attention, stack: Stack, values: Mapping, index: int) -> AttentionSizes:
        heads = values[block.heads.key][index]
        if block.inner is not None and block.inner.key in values:
            inner = values[block.inner.key][index]
        else:
            fixed, per_head = self.constants
            inner = values[fixed] if fixed in values else values[per_head] * heads
        read = self.stack(block.reads) if block.reads else stack
        span = 1
        if block.span is not None:
            span = min(block.span.amount(values[block.span.key][index]), values[read.depth.key])
        return AttentionSizes(heads, inner, values[read.width.key], block.reads is not None, span)

    def terms(self, mean: Means) -> Terms:
        """The latency predictor's terms of a subnet, or of HAT's averages, in their order."""
        found: Terms = {}
        for stack in self.stacks:
            depth, width = stack.depth.key, stack.width.key
            found |= _products(mean, (depth,), (depth, width), (width,))
            for block in stack.blocks:
                found |= block.terms(mean, stack, self)
        first = [name for name in self.term_order if name in found]
        return {name: found[name] for name in dict.fromkeys([*first, *found])}
