"""Layer normalisation over the active width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def check_size(name: str, size: int, largest: int) -> None:
    """Raise ValueError unless ``size`` lies between 1 and ``largest``: a slice beyond the end would be cut short."""
    if not 0 < size <= largest:
        raise ValueError(f"{name} is {size}: allowed are 1 to {largest}")


class ElasticLayerNorm(nn.Module):
    """Normalises over the first d <= D channels with the first d scales and shifts; ``weight``, ``bias`` [D]."""

    def __init__(self, max_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.max_features = self.active_features = max_features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(max_features))
        self.bias = nn.Parameter(torch.zeros(max_features))
        self._materialized: tuple[Tensor, Tensor] | None = None

    def set_active_size(self, features: int) -> None:
        """Use the first ``features`` channels. Raises ValueError unless it has as many."""
        check_size("features", features, self.max_features)
        self.active_features = features
        self.release()

    def merge(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of the active subnet, each [d]."""
        return self.weight[: self.active_features], self.bias[: self.active_features]

    def materialize(self) -> None:
        """Slice now and use the result in every forward until :meth:`release`."""
        weight, bias = self.merge()
        # a view that was made without gradients cannot be copied once its parameter has changed
        self._materialized = (weight, bias) if torch.is_grad_enabled() else (weight.detach(), bias.detach())

    def release(self) -> None:
        """Forget the slices."""
        self._materialized = None

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d] -> [..., d]."""
        weight, bias = self._materialized or self.merge()
        return F.layer_norm(x, (self.active_features,), weight, bias, self.eps)
