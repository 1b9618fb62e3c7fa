"""Position embeddings at the active width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fairseq.modules import SinusoidalPositionalEmbedding
from fairseq.utils import make_positions
from torch import Tensor, nn


class PositionalEmbedding(nn.Module):
    """Sinusoidal or learned positions, numbered as fairseq does (the first token has number padding_idx + 1).

    There is one table; a narrower subnet reads its first columns (HAT, arXiv 2005.14187), so that subnets that share
    weights see the same signal in the same channel.

    Args:
        num_positions: largest number of tokens of a sentence.
        embedding_dim: width D of the table.
        padding_idx: index of the padding token.
        learned: whether the table is a parameter.
    """

    def __init__(self, num_positions: int, embedding_dim: int, padding_idx: int, learned: bool = False) -> None:
        super().__init__()
        self.num_rows, self.padding_idx = num_positions + padding_idx + 1, padding_idx
        self.embedding_dim = embedding_dim
        self.weight: nn.Parameter | None = None
        self._sinusoids: Tensor | None = None
        if learned:
            self.weight = nn.Parameter(torch.empty(self.num_rows, embedding_dim))
            nn.init.normal_(self.weight, mean=0, std=embedding_dim**-0.5)
            nn.init.zeros_(self.weight[padding_idx])

    def set_table_width(self, width: int) -> None:
        """Cut sinusoids from a table of ``width``; learned positions have the width they have."""
        if self.weight is None and width != self.embedding_dim:
            self.embedding_dim, self._sinusoids = width, None

    def table(self, like: Tensor, rows: int = 0) -> Tensor:
        """Positions [rows or more, d] on the device and in the dtype and width of ``like`` [..., d]."""
        width = like.size(-1)
        if self.weight is not None:
            return self.weight[:, :width]
        table = self._sinusoids
        if table is None or table.size(0) < rows or table.device != like.device or table.dtype != like.dtype:
            if table is not None and table.size(0) < rows:
                rows *= 2  # past the largest position: incremental decoding would otherwise build a table per token
            rows = max(rows, self.num_rows)
            table = SinusoidalPositionalEmbedding.get_embedding(rows, self.embedding_dim, self.padding_idx).to(like)
            self._sinusoids = table
        return table[:, :width]

    def forward(self, tokens: Tensor, embedded: Tensor) -> Tensor:
        """tokens [B, T] (with padding), embedded [B, T, d] -> positions [B, T, d]."""
        table = self.table(embedded, self.padding_idx + 1 + tokens.size(1))
        return F.embedding(make_positions(tokens, self.padding_idx), table, self.padding_idx)

    def step(self, num_tokens: int, embedded: Tensor) -> Tensor:
        """Position of the last of ``num_tokens`` unpadded target tokens, [1, 1, d]: incremental decoding."""
        row = self.padding_idx + num_tokens
        return self.table(embedded, row + 1)[row].view(1, 1, -1)
