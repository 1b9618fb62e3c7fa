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
    """Sizes of one layer: its width d, the feed-forward block's inner width f, its attentions in forward order, and the
    rank of the feed-forward block's matrices, 0 if they are not products of two factors."""

    width: int
    ffn: int
    attentions: Mapping[str, AttentionSizes] = field(hash=False)
    rank: int = 0

    @property
    def matrix_size(self) -> int:
        """Elements of each feed-forward matrix, d f."""
        return self.width * self.ffn

    @property
    def factors_size(self) -> int:
        """Elements of the two factors of each feed-forward matrix, r (d + f); 0 without factors."""
        return self.rank * (self.width + self.ffn)

    @property
    def rank_pays(self) -> bool:
        """Whether the factors take less than the matrix. Otherwise a static twin has the matrix."""
        return 0 < self.factors_size < self.matrix_size

    @property
    def cross_span(self) -> int:
        """Return how many outputs of another stack the layer attends to; 0 without cross-attention."""
        return max((attention.span for attention in self.attentions.values() if attention.is_cross), default=0)
