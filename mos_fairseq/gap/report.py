"""The results of ``mos-gap``: tables, one JSON file with everything, and a plot."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.scoring import TEXT_METRICS
from mos_fairseq.figures import new_figure, save_figure
from mos_fairseq.gap.statistics import gap_of
from mos_fairseq.gap.table import Row
from mos_fairseq.versions import versions_of

_MOST = 1e150  # its square is finite
_UNITS = TEXT_METRICS | {"loss": "loss [bits per token]", "ppl": "perplexity"}


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the gap of each metric and supernet (see :class:`~mos_fairseq.gap.statistics.Gap`). If fine-tuning was
    tried, also how many architectures reached the standalone score, and the mean and maximum number of updates: of the
    main metric, whose standalone score ends fine-tuning.

    Raises:
        InputError: a score is so large that statistics of it would be infinite.
    """
    found = []
    for metric, supernet in dict.fromkeys((row.metric, row.supernet) for row in rows):
        group = [row for row in rows if (row.metric, row.supernet) == (metric, supernet)]
        most = max(abs(score) for row in group for score in (row.inherited, row.standalone, *row.finetuned.values()))
        if most > _MOST:
            raise InputError(f"supernet {supernet}: {metric} goes to {most:g}: allowed are scores up to {_MOST:g}")
        gap = gap_of([row.inherited for row in group], [row.standalone for row in group])
        summary = {"metric": metric, "supernet": supernet} | asdict(gap)
        reached = [row.extra_updates for row in group if row.extra_updates is not None]
        if reached or metric == _main_metric(rows, supernet):
            summary["reached_by_finetuning"] = len(reached)
            summary["mean_extra_updates"] = sum(reached) / len(reached) if reached else None
            summary["max_extra_updates"] = max(reached) if reached else None
        found.append(summary)
    return found


def _main_metric(rows: Sequence[Row], supernet: str) -> str | None:
    """Return the metric whose standalone score ended a supernet's fine-tuning; None without fine-tuning.

    If no architecture reached it, it is the first, as ``mos-gap`` writes them."""
    tuned = [row for row in rows if row.supernet == supernet and row.finetuned]
    reached = [row for row in tuned if row.extra_updates is not None]
    return next((row.metric for row in (*reached, *tuned)), None)


def score_table(rows: Sequence[Row], metric: str) -> list[list[str]]:
    """Return scores of one metric as cells: a line for each architecture, a column for each supernet."""
    group = [row for row in rows if row.metric == metric]
    supernets = list(dict.fromkeys(row.supernet for row in group))
    digits = 2 if metric in TEXT_METRICS else 4
    header = [metric, *(name for supernet in supernets for name in (supernet, "alone"))]
    alone_is_shared = all(
        len({row.standalone for row in group if row.subnet == subnet}) == 1 for subnet in {row.subnet for row in group}
    )
    if alone_is_shared:
        header = [metric, "alone", *supernets]
    table = [header]
    for subnet in dict.fromkeys(row.subnet for row in group):
        found = {row.supernet: row for row in group if row.subnet == subnet}
        cells = [subnet]
        if alone_is_shared:
            cells.append(f"{next(iter(found.values())).standalone:.{digits}f}")
        for supernet in supernets:
            row = found.get(supernet)
            pair = ["-", "-"] if row is None else [f"{row.inherited:.{digits}f}", f"{row.standalone:.{digits}f}"]
            cells += pair[:1] if alone_is_shared else pair
        table.append(cells)
    return table


def difference_table(rows: Sequence[Row], metric: str = "bleu") -> list[list[str]]:
    """Return ``bleu`` or ``chrf`` of each supernet minus that of its comparison, with the paired bootstrap's p-value in
    brackets, as cells; empty if nothing was compared."""
    scores = {(row.subnet, row.supernet): row for row in rows if row.metric == metric}
    compared = {key: row for key, row in scores.items() if "p_value" in row.details}
    columns = list(dict.fromkeys((name, row.details.get("compared_with", "")) for (_, name), row in compared.items()))
    if not compared:
        return []
    table = [[f"{_UNITS[metric]} less another's (p)", *(f"{name} - {base}" for name, base in columns)]]
    for subnet in dict.fromkeys(subnet for subnet, _ in compared):
        cells = [subnet]
        for name, base in columns:
            row, other = compared.get((subnet, name)), scores.get((subnet, base))
            if row is None or other is None or row.details.get("compared_with") != base:
                cells.append("-")
            else:
                cells.append(f"{row.inherited - other.inherited:+.2f} ({row.details['p_value']:.3f})")
        table.append(cells)
    return table


def gap_table(summaries: Sequence[dict[str, Any]], metric: str) -> list[list[str]]:
    """Return the gap of one metric as cells: a line for each supernet."""
    group = [summary for summary in summaries if summary["metric"] == metric]
    table = [["gap", "subnets", "MAE", "bias", "std", "Kendall tau", "Spearman"]]
    tuned = any("reached_by_finetuning" in summary for summary in group)
    if tuned:
        table[0] += ["reached", "extra updates"]
    for summary in group:
        cells = [summary["supernet"], str(summary["subnets"]), _number(summary["mae"]), _number(summary["bias"], "+")]
        cells += [_number(summary[name]) for name in ("std", "kendall_tau", "spearman")]
        if tuned:
            mean = summary.get("mean_extra_updates")
            cells += [str(summary.get("reached_by_finetuning", "-")), "-" if mean is None else f"{mean:.0f}"]
        table.append(cells)
    return table


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def versions() -> dict[str, str]:
    """Return the versions of Python, the machine, and the packages that scores depend on."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    return found | versions_of("torch", "numpy", "scipy", "sacrebleu")


def plot_gap(rows: Sequence[Row], path: Path) -> None:
    """Plot inherited against standalone scores as a PNG, one panel per metric; on the line both are equal.

    Raises:
        InputError: the file cannot be written.
    """
    metrics = list(dict.fromkeys(row.metric for row in rows))
    figure = new_figure(5 * len(metrics), 5)
    for number, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(1, len(metrics), number)
        group = [row for row in rows if row.metric == metric]
        scores = [score for row in group for score in (row.inherited, row.standalone)]
        margin = 0.05 * (max(scores) - min(scores)) or 0.5
        ends = [min(scores) - margin, max(scores) + margin]
        axes.plot(ends, ends, color="0.6", linewidth=1)
        summaries = {summary["supernet"]: summary for summary in summarise(group)}
        for marker, (supernet, summary) in zip("osD^v<>P*X" * len(summaries), summaries.items(), strict=False):
            points = [row for row in group if row.supernet == supernet]
            label = f"{supernet}: MAE {summary['mae']:.2f}, tau {_number(summary['kendall_tau'])}"
            alone, mine = [row.standalone for row in points], [row.inherited for row in points]
            axes.scatter(alone, mine, marker=marker, s=24, label=label)
        unit = _UNITS.get(metric, metric)
        axes.set(xlabel=f"standalone {unit}", ylabel=f"inherited {unit}", xlim=ends, ylim=ends)
        axes.legend(fontsize="small")
    save_figure(figure, path)


def plot_finetuning(rows: Sequence[Row], path: Path) -> None:
    """Plot scores less the standalone ones against updates of fine-tuning as a PNG, one panel per metric.

    Every line is an architecture in a supernet, from its inherited score at 0 updates on; at the height of 0 it is as
    good as trained alone, where fine-tuning ends. Rows that were not fine-tuned are left out.

    Raises:
        InputError: the file cannot be written.
    """
    rows = [row for row in rows if row.finetuned]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    supernets = list(dict.fromkeys(row.supernet for row in rows))
    figure = new_figure(5 * len(metrics), 5)
    for number, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(1, len(metrics), number)
        axes.axhline(0, color="0.6", linewidth=1)
        for color, supernet in enumerate(supernets):
            for place, row in enumerate(r for r in rows if (r.metric, r.supernet) == (metric, supernet)):
                updates, scores = zip(*sorted(({0: row.inherited} | row.finetuned).items()), strict=True)
                less = [score - row.standalone for score in scores]
                name = supernet if place == 0 else "_"  # matplotlib leaves such names out
                axes.plot(updates, less, f"C{color % 10}", marker="o", markersize=3, linewidth=1, label=name)
        unit = _UNITS.get(metric, metric)
        axes.set(xlabel="updates of fine-tuning", ylabel=f"{unit}, less the standalone model's")
        axes.legend(fontsize="small")
    save_figure(figure, path)
