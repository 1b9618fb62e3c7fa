#!/usr/bin/env python3
"""Inherited compared with standalone scores over several seeds, as tables in Markdown with 95 % intervals.

    python examples/studies/sampling/evidence.py alone-1/gap.json alone-2/gap.json …

For each metric and supernet: mean of the standalone and of the inherited scores; bias and MAE of the second against the
first; spread, the inherited scores' range relative to the standalone scores', without the largest architecture; and
Kendall's tau of the two. Scores are means over the seeds. The intervals are by bootstrap over architectures and seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

SAMPLES = 1000
FIGURES = ("bias", "MAE", "spread", "tau")

Scores = dict[tuple[str, str], np.ndarray]
"""By metric and supernet: [seeds, 2, architectures] of inherited and standalone scores."""


def read(paths: Sequence[str]) -> Scores:
    """Return the scores of all reports, which have the same architectures, for the supernets in all of them. The
    largest architecture is called so, or has the last name."""
    found: dict[tuple[str, str], list[Any]] = {}
    for path in paths:
        try:
            rows = json.loads(Path(path).read_text(encoding="utf-8"))["scores"]
        except (OSError, ValueError, KeyError) as error:
            sys.exit(f"error: {path}: no gap.json of mos-gap ({type(error).__name__}: {error})")
        for key in dict.fromkeys((row["metric"], row["supernet"]) for row in rows):
            mine = [row for row in rows if (row["metric"], row["supernet"]) == key]
            mine.sort(key=lambda row: (row["subnet"] == "largest", row["subnet"]))  # the largest comes last
            found.setdefault(key, []).append([[row[kind] for row in mine] for kind in ("inherited", "standalone")])
    return {key: np.array(seeds) for key, seeds in found.items() if len(seeds) == len(paths)}


def figures(inherited: np.ndarray, alone: np.ndarray, largest: int | None = None) -> np.ndarray:
    """bias, MAE, spread and tau of scores [architectures]; ``largest`` is left out of the spread."""
    difference = inherited - alone
    rest = np.arange(len(alone)) != largest if largest is not None else np.ones(len(alone), bool)
    width = np.ptp(alone[rest]) if rest.any() else 0.0
    spread = np.ptp(inherited[rest]) / width if width else np.nan
    tau = kendalltau(inherited, alone).statistic if len(set(inherited)) > 1 and len(set(alone)) > 1 else np.nan
    return np.array([difference.mean(), np.abs(difference).mean(), spread, tau])


def intervals(scores: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(figures, lower bounds, upper bounds) of scores [seeds, 2, architectures]."""
    rng = np.random.default_rng(1)
    seeds, _, number = scores.shape
    samples = []
    for _ in range(SAMPLES):
        mean = scores[rng.integers(seeds, size=seeds)].mean(axis=0)
        chosen = rng.integers(number, size=number)
        places = np.flatnonzero(chosen == largest)
        kept = np.setdiff1d(np.arange(number), places[1:])  # the largest counts once in the ranges
        chosen = chosen[kept]
        where = np.flatnonzero(chosen == largest)
        samples.append(figures(*mean[:, chosen], largest=int(where[0]) if len(where) else None))
    low, high = np.nanpercentile(samples, [2.5, 97.5], axis=0)
    return figures(*scores.mean(axis=0), largest=largest), low, high


def table(found: Scores) -> str:
    """A table for each metric."""
    lines = []
    for metric in dict.fromkeys(metric for metric, _ in found):
        digits = 3 if metric == "loss" else 1
        lines += [f"| {metric}: supernet | seeds | alone | inherited | {' | '.join(FIGURES)} |", "|---" * 8 + "|"]
        for (kind, name), scores in found.items():
            if kind == metric:
                inherited, alone = scores.mean(axis=(0, 2))
                cells = [
                    f"{value:.{places}f} ({low:.{places}f} to {high:.{places}f})"
                    for value, low, high, places in zip(
                        *intervals(scores, scores.shape[2] - 1), (digits, digits, 2, 2), strict=True
                    )
                ]
                head = f"| {name} | {len(scores)} | {alone:.{digits}f} | {inherited:.{digits}f} |"
                lines.append(f"{head} {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print(table(read(sys.argv[1:])))
