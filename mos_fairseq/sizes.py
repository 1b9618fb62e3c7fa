"""Active sizes of one Transformer layer, from which layers are built, set and counted. Ints only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class AttentionSizes:
    """Sizes of one attention.

    ``heads`` divide ``inner``, the width q of queries, keys and values. ``memory`` is the width of keys' and values'
    input. ``is_cross``: it attends to another stack's outputs, ``span`` of them concatenated along time.
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
        """Return how many outputs of another stack the layer attends to; 0 without cross-attention."""
        return max((attention.span for attention in self.attentions.values() if attention.is_cross), default=0)
