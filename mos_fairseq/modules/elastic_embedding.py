"""Token embedding that several users read at their own width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mos_fairseq.modules.derived import KeepsDerived
from mos_fairseq.modules.packed_linear import PackedWeight


class ElasticEmbedding(KeepsDerived):
    """Table [V, D] shared by encoder input, decoder input and output projection; each names its active width d <= D
    at the call, because the same table serves different widths in one forward pass."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        nn.init.normal_(self.weight, mean=0, std=embedding_dim**-0.5)
        nn.init.zeros_(self.weight[padding_idx])
        self._packed = PackedWeight()

    def forward(self, tokens: Tensor, width: int) -> Tensor:
        """tokens [B, T] -> [B, T, width].

        Rows are gathered at full width and then cut: cutting the table first would make the backward pass fill a
        second table of gradients.
        """
        embedded = F.embedding(tokens, self.weight, self.padding_idx)
        self.forget_when_trained(embedded)
        return embedded[..., :width]

    def project(self, x: Tensor) -> Tensor:
        """Logits: x [..., d] -> [..., V] with the first d columns of the table."""
        logits = self._packed.linear(x, self.weight)
        self.forget_when_trained(logits)
        return logits

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, padding_idx={self.padding_idx}"
