"""Architecture families: stacks of layers, layers of blocks, blocks of elastic sizes.

A family is declared once (``families/``). Everything else is derived from the declaration: the keys and their order,
the allowed values, a search space's size, enumeration, drawing and genes, the arch encoding, a layer's sizes, cost, the
latency predictor's terms, and a subnet's line in the log. Ints only: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from mos_fairseq.sizes import AttentionSizes, LayerSizes

Means = Mapping[str, float]
"""Each dimension's value, or the mean over the present layers, by key."""

Terms = dict[str, float]
"""Terms in which latency is nearly linear, by name."""


@dataclass(frozen=True)
class Dimension:
    """One elastic size.

    Args:
        key: its YAML key, fairseq's option name if there is one.
        label: its name in ``Subnet.summary``; empty for widths and depths.
        codes: the quantity that each value stands for, if values are codes (codes and quantities ascend alike).
        allowed: explanation of the codes, for messages.
        most: the largest allowed value; None for no limit.
        optional: a space may leave it out. Then it has no effect on drawing, encoding, costs and output, so that
            spaces, checkpoints and draws from before the dimension stay the same.
    """

    key: str
    label: str = ""
    codes: Mapping[int, int] | None = field(default=None, hash=False)
    allowed: str = ""
    most: int | None = None
    optional: bool = False

    def amount(self, value: int) -> int:
        """Return the quantity that ``value`` stands for: itself, or its code's meaning."""
        return self.codes[value] if self.codes else value


@dataclass(frozen=True)
class FeedForward:
    """Two linears with an activation between, d -> f -> d, and a layer norm.

    Args:
        size: f.
        ratio: f in per cent of d, which a space may name instead of ``size``.
        rank: r of both matrices, which are then products of two factors, d x r and r x f (arXiv 2106.08895).
    """

    size: Dimension
    ratio: Dimension | None = None
    rank: Dimension | None = None
    norms: int = 1

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Its dimensions in the order of keys."""
        return tuple(d for d in (self.size, self.ratio, self.rank) if d is not None)

    def inner(self, values: Mapping, index: int, width: int) -> int:
        """Return f of the layer with this ``index`` and ``width``."""
        if self.ratio is None or self.size.key in values:
            return values[self.size.key][index]
        return max(1, values[self.ratio.key][index] * width // 100)

    def amounts(self, layer: LayerSizes) -> dict[str, int]:
        """Return the dimensions' quantities in a layer, by key."""
        found = {dimension.key: layer.ffn for dimension in (self.size, self.ratio) if dimension is not None}
        return found if self.rank is None else found | {self.rank.key: layer.rank}

    def rank_of(self, values: Mapping, index: int) -> int:
        """Return r of the layer with this ``index``; 0 in a space without ranks."""
        return values[self.rank.key][index] if self.rank is not None and self.rank.key in values else 0

    def cost(self, layer: LayerSizes, length: int, memory_length: int) -> tuple[int, int]:
        """Return (parameters, multiply-accumulates) for ``length`` tokens, without the norm."""
        d, f = layer.width, layer.ffn
        each = layer.factors_size if layer.rank_pays else layer.matrix_size
        return 2 * each + f + d, 2 * length * each

    def terms(self, mean: Means, stack: Stack, family: Family) -> Terms:
        """Return products of means in which its time is nearly linear."""
        depth, width = stack.depth.key, stack.inside(mean).key
        size = next(dimension.key for dimension in self.dimensions if dimension.key in mean)
        found = _products(mean, (depth, size), (depth, size, width))
        if self.rank is not None and self.rank.key in mean:
            rank = self.rank.key
            found |= _products(mean, (depth, rank))
            factors, matrix = mean[rank] * (mean[width] + mean[size]), mean[width] * mean[size]
            found[f"{depth}*factors"] = mean[depth] * min(factors, matrix)
        return found


@dataclass(frozen=True)
class Attention:
    """Multi-head attention and a layer norm.

    Args:
        name: name of the module in a layer: ``self_attn``, ``encoder_attn``.
        heads: number of heads.
        reads: the stack whose outputs it attends to; None for its own input.
        span: number of that stack's last outputs that it reads, concatenated along time; None for the last.
        inner: q, the width of queries, keys and values, if a space lets it vary by layer. In a space that does not name
            it, one of the family's constants determines q.
        within_width: with heads of a fixed width, a layer has at most as many as fit into its own width.
    """

    name: str
    heads: Dimension
    reads: str | None = None
    span: Dimension | None = None
    inner: Dimension | None = None
    within_width: bool = False
    norms: int = 1

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Its dimensions in the order of keys."""
        return tuple(d for d in (self.heads, self.span, self.inner) if d is not None)

    def amounts(self, layer: LayerSizes) -> dict[str, int]:
        """Return the dimensions' quantities in a layer, by key; a span counts the outputs that exist."""
        sizes = layer.attentions[self.name]
        pairs = ((self.heads, sizes.heads), (self.span, sizes.span), (self.inner, sizes.inner))
        return {dimension.key: amount for dimension, amount in pairs if dimension is not None}

    def cost(self, layer: LayerSizes, length: int, memory_length: int) -> tuple[int, int]:
        """Return (parameters, multiply-accumulates) for ``length`` queries over ``memory_length`` tokens an output."""
        d, sizes = layer.width, layer.attentions[self.name]
        q, memory = sizes.inner, sizes.memory
        n = sizes.span * memory_length
        params = (d + 1) * q + 2 * (memory + 1) * q + (q + 1) * d
        macs = 2 * length * d * q + 2 * n * memory * q  # query and output, key and value
        return params, macs + 2 * length * n * q  # scores, and their product with the values

    def terms(self, mean: Means, stack: Stack, family: Family) -> Terms:
        """Return products of means in which its time is nearly linear."""
        depth, width, heads = stack.depth.key, stack.inside(mean).key, self.heads.key
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
class ProjectionHead:
    """A linear, an activation and a norm before the projection to the vocabulary, which then has a bias."""

    norms: int = 1

    def cost(self, width: int, length: int) -> tuple[int, int]:
        """Return (parameters, multiply-accumulates) for ``length`` tokens, without norm and projection."""
        return (width + 1) * width, length * width * width


@dataclass(frozen=True)
class Stack:
    """Layers of one kind.

    Args:
        name: name of the module in the model, and fairseq's option prefix: ``encoder``, ``decoder``.
        label: its name in ``Subnet.summary``.
        width: width of the embeddings, and of the layers in a space with neither ``hidden`` nor ``bottleneck``.
        blocks: blocks of each layer, in the order of keys, which may differ from the forward pass.
        hidden: width of all layers; a linear map leads into the first, and another out of the last.
        bottleneck: width of each layer, with a linear map into it and one out of it. Nothing is between the map out of
            a layer and the map into the next, so a static twin merges them.
        tokens: the tokens whose length and positions it works on, ``source`` or ``target``.
        causal: a position does not see later positions.
        positions: the option with its largest number of positions; by default ``max_TOKENS_positions``.
        fixed: model options that always have this value, by name.
    """

    name: str
    label: str
    width: Dimension
    depth: Dimension
    blocks: tuple[FeedForward | Attention, ...]
    hidden: Dimension | None = None
    bottleneck: Dimension | None = None
    tokens: str = "source"
    causal: bool = False
    positions: str = ""
    fixed: Mapping[str, bool] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", self.positions or f"max_{self.tokens}_positions")

    @cached_property
    def layer_dimensions(self) -> tuple[Dimension, ...]:
        """Dimensions with a value for each layer; one shared by several blocks appears once."""
        own = () if self.bottleneck is None else (self.bottleneck,)
        return tuple(dict.fromkeys((*own, *(d for block in self.blocks for d in block.dimensions))))

    def inside(self, values: Mapping) -> Dimension:
        """Return the dimension that determines the width of layers in ``values``."""
        narrower = (d for d in (self.bottleneck, self.hidden) if d is not None and d.key in values)
        return next(narrower, self.width)

    def amounts(self, layer: LayerSizes) -> dict[str, int]:
        """Return the quantities of a layer's dimensions, by key."""
        found = {} if self.bottleneck is None else {self.bottleneck.key: layer.width}
        for block in self.blocks:
            found |= block.amounts(layer)
        return found

    def setting(self, options: object, name: str) -> bool:
        """Return the value of the option ``name`` in ``options`` (of a model or its cost), unless it is fixed."""
        return self.fixed[name] if name in self.fixed else getattr(options, name)

    def normalize_before(self, options: object) -> bool:
        """Return whether layer norms come before their sublayers."""
        return self.setting(options, f"{self.name}_normalize_before")

    def learned_pos(self, options: object) -> bool:
        """Return whether positions are learned."""
        return self.setting(options, f"{self.name}_learned_pos")

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
        name: value of a search space's key ``family``.
        stacks: from the input to the output.
        output: the stack whose last output is projected to the vocabulary.
        constants: keys that determine q of every attention without an elastic ``inner``, either q itself or the width
            of a head; exactly one of them must then be set.
        splits_width: no constant needs to be set; without one, q is the width of the layer, as in BERT.
        head: layers before the projection to the vocabulary, if any.
        own_output: (option, value) with which the projection to the vocabulary has a table of its own.
        objectives: scores by which its subnets may be judged.
        workloads: workloads for latency, the default first (see ``mos_fairseq.latency.workloads``).
        term_order: names of the latency predictor's first terms, in this order; the others follow in the order of the
            blocks. Files of predictors store weights by position.
    """

    name: str
    stacks: tuple[Stack, ...]
    output: str
    workloads: tuple[str, ...]
    objectives: tuple[str, ...] = ("loss",)
    constants: tuple[str, str] = ("qkv_dim", "head_dim")
    splits_width: bool = False
    head: ProjectionHead | None = None
    own_output: tuple[str, bool] = ("share_decoder_input_output_embed", False)
    term_order: tuple[str, ...] = ()

    def stack(self, name: str) -> Stack:
        """Return the stack with that name."""
        return next(stack for stack in self.stacks if stack.name == name)

    @cached_property
    def widths(self) -> tuple[Dimension, ...]:
        """Dimensions with one value per subnet that are not depths."""
        hidden = tuple(s.hidden for s in self.stacks if s.hidden is not None)
        return tuple(s.width for s in self.stacks) + hidden

    @cached_property
    def scalars(self) -> tuple[Dimension, ...]:
        """Dimensions with one value per subnet: widths, then depths."""
        return self.widths + tuple(s.depth for s in self.stacks)

    @cached_property
    def alternatives(self) -> tuple[tuple[tuple[str, str], bool], ...]:
        """(keys of which a space has at most one, whether it must have one)."""
        found = []
        for stack in self.stacks:
            if stack.hidden is not None and stack.bottleneck is not None:
                found.append(((stack.hidden.key, stack.bottleneck.key), False))
            for block in stack.blocks:
                if isinstance(block, FeedForward) and block.ratio is not None:
                    found.append(((block.size.key, block.ratio.key), True))
        return tuple(found)

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Dimensions in the order of drawing, enumerating, genes and printing."""
        return self.scalars + tuple(d for s in self.stacks for d in s.layer_dimensions)

    @cached_property
    def encoded(self) -> tuple[Dimension, ...]:
        """Dimensions in the order of the arch encoding: stack by stack."""
        dimensions = (d for s in self.stacks for d in (s.width, s.hidden, s.depth, *s.layer_dimensions))
        return tuple(d for d in dimensions if d is not None)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """All keys of a space or a subnet: dimensions, then constants."""
        return tuple(d.key for d in self.dimensions) + self.constants

    @cached_property
    def options(self) -> frozenset[str]:
        """Names of options of models, cost and latency that only some families have."""
        names = {self.own_output[0], "layernorm_embedding"}
        for stack in self.stacks:
            names |= {f"{stack.name}_learned_pos", f"{stack.name}_normalize_before", stack.positions}
            names.add({"source": "src_len", "target": "tgt_len"}[stack.tokens])
            names -= set(stack.fixed)
        return frozenset(names | ({"tgt_vocab_size", "share_all_embeddings"} if len(self.stacks) > 1 else set()))

    @cached_property
    def by_key(self) -> dict[str, Dimension]:
        """Dimensions by key."""
        return {d.key: d for d in self.dimensions}

    @cached_property
    def owners(self) -> dict[str, Stack]:
        """For each per-layer key, the stack whose layers have its values; scalars are absent."""
        return {d.key: stack for stack in self.stacks for d in stack.layer_dimensions}

    @cached_property
    def read_by_span(self) -> dict[str, Stack]:
        """For each span's key, the stack whose outputs it counts."""
        found = {}
        for stack in self.stacks:
            for block in stack.attentions:
                if block.span is not None and block.reads is not None:
                    found[block.span.key] = self.stack(block.reads)
        return found

    def layers(self, stack: Stack, values: Mapping[str, object]) -> tuple[LayerSizes, ...]:
        """Return the sizes of each present layer of ``stack``, from a subnet's ``values`` by key.

        Only this function combines per-layer values. A span is clamped to the depth of the stack that it reads: an
        encoder of 2 layers has no third output, and repeating one would only double its weight in the softmax.
        """
        found = []
        for index, width in enumerate(self._widths(stack, values)):
            ffn, rank, attentions = 0, 0, {}
            for block in stack.blocks:
                if isinstance(block, FeedForward):
                    ffn, rank = block.inner(values, index, width), block.rank_of(values, index)
                else:
                    attentions[block.name] = self._attention(block, values, index, width)
            found.append(LayerSizes(width, ffn, attentions, rank))
        return tuple(found)

    def _widths(self, stack: Stack, values: Mapping) -> tuple[int, ...]:
        inside = values[stack.inside(values).key]
        return inside if isinstance(inside, tuple) else (inside,) * values[stack.depth.key]

    def _attention(self, block: Attention, values: Mapping, index: int, width: int) -> AttentionSizes:
        heads, (fixed, per_head) = values[block.heads.key][index], self.constants
        if block.inner is not None and block.inner.key in values:
            inner = values[block.inner.key][index]
        elif per_head in values:
            heads = min(heads, width // values[per_head]) if block.within_width else heads
            inner = values[per_head] * heads
        else:
            inner = values.get(fixed, width)
        if block.reads is None:
            return AttentionSizes(heads, inner, width)
        read, span = self.stack(block.reads), 1
        if block.span is not None:
            span = min(block.span.amount(values[block.span.key][index]), values[read.depth.key])
        return AttentionSizes(heads, inner, values[read.width.key], True, span)

    def maps(self, stack: Stack, values: Mapping) -> tuple[tuple[int, int] | None, ...]:
        """Return (input, output) widths of the linear maps around the layers of a subnet's static twin: before each
        layer, and after the last; None where there is no map. Empty if layers have no width of their own."""
        inside, outside = stack.inside(values), values[stack.width.key]
        if inside is stack.width:
            return ()
        widths = (outside, *self._widths(stack, values), outside)
        pairs: list[tuple[int, int] | None] = list(zip(widths[:-1], widths[1:], strict=True))
        if inside is stack.hidden:
            pairs[1:-1] = [None] * (len(pairs) - 2)
        return tuple(pairs)

    def terms(self, mean: Means) -> Terms:
        """Return the latency predictor's terms of a subnet, or of HAT's averages, in their order."""
        found: Terms = {}
        for stack in self.stacks:
            depth, width = stack.depth.key, stack.inside(mean).key
            found |= _products(mean, (depth,), (depth, width), (width,))
            for block in stack.blocks:
                found |= block.terms(mean, stack, self)
        first = [name for name in self.term_order if name in found]
        return {name: found[name] for name in dict.fromkeys([*first, *found])}
