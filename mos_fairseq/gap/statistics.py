"""How well scores with inherited weights tell what standalone training reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Gap:
    """Inherited against standalone scores of ``subnets`` architectures, in the scores' unit (BLEU, bits per token).

    ``mae``: mean absolute difference (MoS, arXiv 2306.04845, table 2). ``bias``: mean of inherited minus standalone;
    ``std``: sample standard deviation of that difference, None for one architecture. ``kendall_tau`` (tau-b) and
    ``spearman``: do the inherited scores rank the architectures as the standalone ones do; None where a rank
    correlation has no value (fewer than two architectures, or all scores of one kind equal).
    """

    subnets: int
    mae: float
    bias: float
    std: float | None
    kendall_tau: float | None
    spearman: float | None


def gap_of(inherited: Sequence[float], standalone: Sequence[float]) -> Gap:
    """The gap between two lists of scores, one pair an architecture. Raises ValueError where there are no pairs."""
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
