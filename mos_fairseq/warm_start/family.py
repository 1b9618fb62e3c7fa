"""Of which family warm starts are, and what of a search space they depend on. Needs no torch."""

from __future__ import annotations

from mos_fairseq.search_space import FAMILIES, SearchSpace, check_family

FAMILY, MASKED = FAMILIES["encoder_decoder"], FAMILIES["encoder_only"]
SIDES = tuple(stack.name for stack in FAMILY.stacks)
"""The stacks of the first, from the input to the output."""


def check_family_of(space: SearchSpace) -> None:
    """Raise InputError unless ``space`` is of a family that warm starts are for."""
    check_family("mos-warm-start", [FAMILY.name, MASKED.name], "the search space", space.family)


def has_narrower_embeddings(space: SearchSpace) -> bool:
    """Whether subnets of ``space`` use fewer channels than the largest: the first ones."""
    widths = [width for s in space.family.stacks for width in (s.width, s.hidden, s.bottleneck) if width is not None]
    return any(len(getattr(space, width.key) or ()) > 1 for width in widths)


def has_narrower_attention(space: SearchSpace) -> bool:
    """Whether subnets of ``space`` use fewer rows of an attention's projections than the largest: those of the first
    heads. With ``qkv_dim``, all use all of them."""
    largest, smallest = space.largest(), space.smallest()
    return any(
        smallest.layers(side)[0].attentions[name].inner < sizes.inner
        for side in (stack.name for stack in space.family.stacks)
        for name, sizes in largest.layers(side)[0].attentions.items()
    )
