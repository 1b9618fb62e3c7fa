"""Budgets that a searched subnet has to keep, as users type them: ``latency_ms<=40``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mos_fairseq.errors import InputError

COST_KEYS = (
    "latency_ms",
    "params",
    "params_without_embeddings",
    "flops",
    "flops_without_output_projection",
)


@dataclass(frozen=True)
class Constraint:
    """``key`` is at most ``limit``."""

    key: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """From ``KEY<=NUMBER``. Raises InputError for anything else."""
        match = re.fullmatch(r"\s*(\w+)\s*<=\s*(\S+)\s*", text)
        try:
            key, limit = match[1], float(match[2])
        except (TypeError, ValueError):
            raise InputError(f"constraint {text!r}: allowed is KEY<=NUMBER, as in 'latency_ms<=40'") from None
        if key not in COST_KEYS:
            raise InputError(f"constraint {text!r}: {key} is not known; allowed are {', '.join(COST_KEYS)}")
        if not (math.isfinite(limit) and limit > 0):
            raise InputError(f"constraint {text!r}: the limit must be a positive number")
        return cls(key, limit)

    def excess(self, costs: Mapping[str, float]) -> float:
        """How far ``costs`` lie over the limit, relative to it; 0 or less where it is kept."""
        return costs[self.key] / self.limit - 1

    def __str__(self) -> str:
        return f"{self.key}<={self.limit:g}"
