"""Budgets for a searched subnet, as users type them: ``latency_ms<=40``, ``latency_ms<=80%``."""

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
    "encoder_ms",
    "decoder_ms",
    "transfer_bytes",
    "split_latency_ms",
)
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"


@dataclass(frozen=True)
class Constraint:
    """``key`` is at most ``limit``, or at most that percentage of the largest subnet's cost."""

    key: str
    limit: float
    in_percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Parse ``KEY<=NUMBER`` or ``KEY<=NUMBER%``; the number has digits 0 to 9, optionally a point and an exponent.
        Raises InputError for anything else, including other forms that Python parses as a number (``1_000``, ``inf``,
        digits of other scripts)."""
        match = re.fullmatch(rf"\s*(\w+)\s*<=\s*({_NUMBER})\s*(%?)\s*", text)
        if match is None:
            raise InputError(
                f"constraint {text!r}: allowed is KEY<=NUMBER, the number in digits with a point or an exponent, as in "
                "'latency_ms<=40.5' or 'params<=8e6', or with % in parts of the largest subnet's, as in "
                "'latency_ms<=80%'"
            )
        key, limit = match[1], float(match[2])
        if key not in COST_KEYS:
            raise InputError(f"constraint {text!r}: {key} is not known; allowed are {', '.join(COST_KEYS)}")
        if not (math.isfinite(limit) and limit > 0):
            raise InputError(f"constraint {text!r}: the limit must be a positive number")
        return cls(key, limit, in_percent=bool(match[3]))

    def of_largest(self, costs: Mapping[str, float]) -> Constraint:
        """Return the constraint in the unit of ``key``, given the largest subnet's ``costs``."""
        return Constraint(self.key, self.limit / 100 * costs[self.key]) if self.in_percent else self

    def excess(self, costs: Mapping[str, float]) -> float:
        """Return how far ``costs`` exceed the limit, relative to it; 0 or less if they keep it."""
        return costs[self.key] / self.limit - 1

    def __str__(self) -> str:
        return f"{self.key}<={self.limit:g}{'%' if self.in_percent else ''}"
