"""Linears whose matrix is a product of two factors, W = U V with U [O, R] and V [R, I] (after arXiv 2106.08895).

A subnet of rank r uses the first r columns of U and rows of V, and its slices of O and I. Both factors may have
experts. r (O + I) multiplications for a token replace O I, so that a rank pays below O I / (O + I).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mos_fairseq.modules.elastic_linear import ElasticLinear


class FactoredLinear(nn.Module):
    """A linear of two factors: ``down`` [I -> R] without a bias, then ``up`` [R -> O]."""

    def __init__(self, down: Any, up: Any) -> None:
        super().__init__()
        self.down, self.up = down, up

    @property
    def rank(self) -> int:
        """R, the largest rank in a supernet."""
        return self.up.weight.size(-1)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., i] -> [..., o]."""
        return self.up(self.down(x))


def elastic_factors(in_features: int, out_features: int, rank: int, **experts: Any) -> FactoredLinear:
    """Return a linear of two elastic factors, spread as :func:`spread_as_product` says."""
    down = ElasticLinear(in_features, rank, bias=False, **experts, gain=None)
    return spread_as_product(FactoredLinear(down, ElasticLinear(rank, out_features, **experts, gain=None)))


@torch.no_grad()
def spread_as_product(factors: FactoredLinear) -> FactoredLinear:
    """Give ``up``, drawn as torch's linears are, the variance 1/R instead of 1/(3 R). So each entry of the product at
    the largest rank R has that of ``down``, 1/(3 I), the variance of a fresh linear. A lower rank r has r/R of it."""
    factors.up.weight *= math.sqrt(3)
    return factors


def reader(linear: nn.Module) -> nn.Module:
    """Return the part of a linear whose columns are its inputs."""
    return linear.down if isinstance(linear, FactoredLinear) else linear


def writer(linear: nn.Module) -> nn.Module:
    """Return the part of a linear whose rows are its outputs."""
    return linear.up if isinstance(linear, FactoredLinear) else linear


def dense(linear: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight [o, i] and bias [o] of a linear of a static twin; factors are multiplied, in double precision."""
    if not isinstance(linear, FactoredLinear):
        return linear.weight, linear.bias
    return product(linear.up.weight, linear.down.weight), linear.up.bias


def product(up: Tensor, down: Tensor) -> Tensor:
    """Return U V, rounded once."""
    return (up.double() @ down.double()).to(up.dtype)


def truncated_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return U [O, R] and V [R, I] whose first r columns and rows are the best approximation of rank r of ``weight``,
    for every r (Eckart and Young): singular vectors, each times the root of its singular value. They are zero beyond
    min(O, I)."""
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    roots = values[:rank].sqrt()
    up, down = left[:, :rank] * roots, roots[:, None] * right[:rank]
    missing = rank - len(roots)
    up, down = nn.functional.pad(up, (0, missing)), nn.functional.pad(down, (0, 0, 0, missing))
    return up.to(weight.dtype), down.to(weight.dtype)
