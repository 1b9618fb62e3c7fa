"""Sizes in force of one Transformer layer: what a layer is built of, set to, and counted from. Ints only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class AttentionSizes:
    """Sizes of one attention.

    ``heads`` split ``inner``, the width q of queries, keys and values; ``memory`` is the width of what is attended to.
    ``is_cross``: it attends to the outputs of another stack, of which ``span`` are concatenated along time.
    """

    heads: int
    inner: int
    memory: int
    is_cross: bool = False
    span: int = 1


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of one layer: its width d, the feed-forward block's inner width, and its attentions in forward order."""

    width: int
    ffn: int
    attentions: Mapping[str, AttentionSizes] = field(hash=False)

    @property
    def cross_span(self) -> int:
        """How many outputs of another stack it attends to; 0 without cross-attention."""
        return max((attention.span for attention in self.attentions.values() if attention.is_cross), default=0)
