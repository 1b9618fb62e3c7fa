"""Plots of a benchmark's suites."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mos_fairseq.benchmark.timing import Section
from mos_fairseq.figures import new_figure, save_figure


def plot_suite(title: str, sections: Sequence[Section], path: str | os.PathLike[str]) -> None:
    """Plot one bar per variant: its ratio to the section's base, with the 95 % interval and the target.

    Raises:
        InputError: the file cannot be written.
    """
    bars = [
        (f"{section.title}\n{row['variant']} / {section.base}", row)
        for section in sections
        for row in section.rows()
        if "ratio" in row
    ]
    figure = new_figure(9, 1.2 + 0.55 * len(bars))
    axes = figure.add_subplot()
    for place, (_, row) in enumerate(bars):
        axes.barh(place, row["ratio"], color="tab:blue" if row["ratio"] <= row.get("target", 9e9) else "tab:orange")
        if "interval" in row:
            axes.plot(row["interval"], [place, place], color="black", linewidth=1.5)
        if "target" in row:
            axes.plot([row["target"]] * 2, [place - 0.4, place + 0.4], color="tab:red", linewidth=2)
        axes.annotate(f" {row['ratio']:.3f}", (max(row["ratio"], *row.get("interval", [0])), place), va="center")
    axes.axvline(1, color="0.6", linewidth=1)
    axes.set_yticks(range(len(bars)), [label for label, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(f"{title}: ratio to the base (red: target)")
    save_figure(figure, path)
