"""Measure how well scores with inherited weights predict the results of standalone training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Gap:
    """Difference of inherited and standalone scores of ``subnets`` architectures, in their unit (BLEU, bits per token).

    ``mae``: mean absolute difference (MoS, arXiv 2306.04845, table 2). ``bias``: mean of inherited minus standalone;
    ``std``: sample standard deviation of that difference, None for one architecture. ``kendall_tau`` (tau-b) and
    ``spearman``: rank correlation of inherited and standalone scores, None where it is undefined (fewer than two
    architectures, or all scores of one kind equal).
    """

    subnets: int
    mae: float
    bias: float
    std: float | None
    kendall_tau: float | None
    spearman: float | None


def gap_of(inherited: Sequence[float], standalone: Sequence[float]) -> Gap:
    """Return the gap between two lists of scores, one pair per architecture. Raises ValueError without pairs."""
    if len(inherited) != len(standalone) or not inherited:
        raise ValueError(f"{len(inherited)} inherited and {len(standalone)} standalone scores: allowed are pairs")
    mine, alone = np.asarray(inherited, dtype=float), np.asarray(standalone, dtype=float)
    difference = mine - alone
    ranked = len(np.unique(mine)) > 1 and len(np.unique(alone)) > 1
    return Gap(
        subnets=len(mine),
        mae=float(np.abs(difference).mean()),
        bias=float(difference.mean()),
        std=float(difference.std(ddof=1)) if len(mine) > 1 else None,
        kendall_tau=_finite(stats.kendalltau(mine, alone).statistic) if ranked else None,
        spearman=_finite(stats.spearmanr(mine, alone).statistic) if ranked else None,
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
