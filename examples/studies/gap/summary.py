#!/usr/bin/env python3
"""The gap over several seeds, as a table in Markdown: mean, and in brackets the lowest and highest seed.

    python examples/studies/gap/summary.py gap-1/gap.json gap-2/gap.json …

Columns for BLEU and for the loss in bits: the mean score of the subnets, their mean difference to training alone
(bias), its mean size (MAE), and how well inherited scores rank the architectures (Kendall's tau).
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("mean", "bias", "mae", "kendall_tau")
TITLES = ("supernet", "mean", "bias", "MAE", "tau")


def read(path: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the gaps of one report by metric and supernet, with the ``mean`` of inherited and the ``alone`` scores."""
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        found = {(gap["metric"], gap["supernet"]): dict(gap) for gap in report["gaps"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"error: {path}: no gap.json of mos-gap ({type(error).__name__}: {error})")
    for (metric, name), gap in found.items():
        rows = [row for row in report["scores"] if (row["metric"], row["supernet"]) == (metric, name)]
        gap["mean"] = statistics.fmean(row["inherited"] for row in rows)
        gap["alone"] = statistics.fmean(row["standalone"] for row in rows)
    return found


def spread(values: Sequence[float | None], digits: int, sign: str = "") -> str:
    """Mean and range of one figure over the seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    text = f"{statistics.fmean(known):{sign}.{digits}f}"
    if len(known) > 1:
        text += f" ({min(known):{sign}.{digits}f} to {max(known):{sign}.{digits}f})"
    return text


def table(reports: Sequence[dict[tuple[str, str], dict[str, Any]]]) -> list[str]:
    """Lines of Markdown: one table a metric."""
    lines = []
    for metric in dict.fromkeys(metric for report in reports for metric, _ in report):
        names = list(dict.fromkeys(name for report in reports for kind, name in report if kind == metric))
        digits = 3 if metric == "loss" else 1
        unit = "loss [bits]" if metric == "loss" else {"bleu": "BLEU", "chrf": "chrF"}.get(metric, metric)
        lines += [f"| {unit}: {' | '.join(TITLES)} |", f"|{'---|' * len(TITLES)}"]
        alone = [next(gap["alone"] for (kind, _), gap in report.items() if kind == metric) for report in reports]
        lines.append(f"| alone | {spread(alone, digits)} | | | |")
        for name in names:
            gaps = [report[metric, name] for report in reports if (metric, name) in report]
            figures = [
                spread([gap[key] for gap in gaps], 2 if key == "kendall_tau" else digits, "+" if key == "bias" else "")
                for key in COLUMNS
            ]
            lines.append(f"| {name} | {' | '.join(figures)} |")
        lines.append("")
    return lines


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print("\n".join(table([read(path) for path in sys.argv[1:]])).rstrip())
