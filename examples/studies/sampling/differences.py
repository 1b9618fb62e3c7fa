#!/usr/bin/env python3
"""Compare recipes with one of them, by the rows of scores.py, as tables in Markdown.

    python examples/studies/sampling/differences.py ROWS.json BASE RECIPE…

A recipe's score minus that of BASE with the same seed and subnet: the mean over the seeds and, from two seeds on, its
95 % interval by Student's t. The last column is the mean over the subnets.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t

SCORES = {"bleu": 1, "loss": 3}
"""The scores of a row, and the decimal places that are shown."""


def interval(found: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean; None for one value."""
    if len(found) < 2:
        return None
    return float(t.ppf(0.975, len(found) - 1)) * statistics.stdev(found) / len(found) ** 0.5


def paired(rows: list[dict[str, Any]], base: str, recipe: str, score: str) -> dict[str, list[float]]:
    """The differences by subnet, one for each seed with which both recipes have all subnets' scores; "mean" last."""
    names = sorted({row["subnet"] for row in rows}, key=lambda name: (name == "smallest", name != "largest", name))
    found = {(row["recipe"], row["seed"], row["subnet"]): row[score] for row in rows if score in row}
    differences: dict[str, list[float]] = {name: [] for name in [*names, "mean"]}
    for seed in sorted({row["seed"] for row in rows}):
        ends = [(found.get((recipe, seed, name)), found.get((base, seed, name))) for name in names]
        both = [mine - theirs for mine, theirs in ends if mine is not None and theirs is not None]
        if len(both) == len(names):
            for name, difference in zip(names, both, strict=True):
                differences[name].append(difference)
            differences["mean"].append(statistics.fmean(both))
    return differences


def table(rows: list[dict[str, Any]], base: str, recipes: Sequence[str], score: str) -> str:
    """A line for each recipe that has a seed in common with ``base``; empty without one."""
    lines: list[str] = []
    for recipe in recipes:
        found = paired(rows, base, recipe, score)
        if not found["mean"]:
            continue
        if not lines:
            lines = [f"| {score}, minus {base} | seeds | {' | '.join(found)} |", "|---|---|" + "---|" * len(found)]
        cells = []
        for values in found.values():
            half, digits = interval(values), SCORES[score]
            cells.append(
                f"{statistics.fmean(values):+z.{digits}f}" + (f" ± {half:.{digits}f}" if half is not None else "")
            )
        lines.append(f"| {recipe} | {len(found['mean'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Command line."""
    if len(argv) < 3:
        sys.exit(__doc__)
    path, base, *recipes = argv
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        known = sorted({recipe for recipe, _, _ in [(row["recipe"], row["seed"], row["subnet"]) for row in rows]})
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: {path}: no rows of scores.py ({type(error).__name__}: {error})")
    for name in (base, *recipes):
        if name not in known:
            sys.exit(f"error: {path} has no recipe {name}: it has {', '.join(known)}")
    tables = [table(rows, base, recipes, score) for score in SCORES]
    if not any(tables):
        sys.exit(f"error: {path}: no seed has {base} and another of these recipes with all subnets")
    print("\n\n".join(filter(None, tables)))


if __name__ == "__main__":
    main(sys.argv[1:])
