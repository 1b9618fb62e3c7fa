"""The closing table of ``mos-search``: its results, subnets that need no search, and the effect of the budgets."""

from __future__ import annotations

from typing import Any

from mos_fairseq.cli import aligned
from mos_fairseq.nas.constraints import COST_KEYS
from mos_fairseq.nas.results import Row, front_rows
from mos_fairseq.search_space import Subnet

_FRONT = 5  # number of rows over the front's whole range


def closing_rows(results: dict[str, Any]) -> dict[str, Row]:
    """Return the rows of the table by name; they are rows of ``results``."""
    rows = {f"front {number}": found for number, found in enumerate(front_rows(results, _FRONT), start=1)}
    compared = {"best": results["best"]} | results["compared"]
    order = ("smallest", "uniform", "best", "beyond", "largest")
    return rows | {name: compared[name] for name in order if name in compared}


def table(results: dict[str, Any], mape: float | None) -> str:
    """Return the table as text; ``mape`` is the predictor's error in per cent."""
    objective, rows = results["objective"], closing_rows(results)
    costs = [key for key in ("latency_ms", "measured_latency_ms", *COST_KEYS[1:]) if _any(rows, key)]
    header, cells = ["subnet"], [[name] for name in rows]
    if objective != "bleu" or not _any(rows, "bleu_ci"):
        header.append(objective)
        for found, row in zip(cells, rows.values(), strict=True):
            found.append(f"{row[objective]:.4f}")
    if _any(rows, "bleu_ci"):
        header += ["bleu", "p"]
        for found, row in zip(cells, rows.values(), strict=True):
            found += [f"{row['bleu']:.1f}±{row['bleu_ci']:.1f}", f"{row['p_value']:.3f}" if "p_value" in row else "-"]
    for key in costs:
        header.append(key)
        for found, row in zip(cells, rows.values(), strict=True):
            found.append(_cost(key, row.get(key), mape))
    return aligned([header, *cells])


def _any(rows: dict[str, Row], key: str) -> bool:
    return any(row.get(key) is not None for row in rows.values())


def _cost(key: str, value: float | None, mape: float | None) -> str:
    if value is None:
        return "-"
    error = f"±{value * mape / 100:.2g}" if key == "latency_ms" and mape is not None else ""
    return f"{value:.6g}{error}"


def budget_lines(results: dict[str, Any]) -> list[str]:
    """Return lines with the used share of each budget, and the gain from slightly larger ones in the lines of those
    that it exceeds."""
    best, beyond, objective = results["best"], results["compared"].get("beyond"), results["objective"]
    lines = []
    for key, limit in results["budgets"].items():
        line = f"budget: {key}<={limit:.6g}, of which the best takes {100 * best[key] / limit:.0f} %"
        if beyond is not None and beyond[key] > limit:
            gain = "no better" if not _better(objective, beyond, best) else f"{objective} {beyond[objective]:.4f}"
            line += f"; with {100 * beyond[key] / limit:.0f} %: {gain}"
        lines.append(line)
    return lines


def beaten(results: dict[str, Any]) -> str | None:
    """Return a warning if a subnet that needs no search is the best, or as good. Without a budget, that is to be
    expected of the largest."""
    objective, best, found = (results[name] for name in ("objective", "best", "algorithm_best"))
    for name, other in results["compared"].items():
        if name == "beyond" or (name == "largest" and not results["budgets"]):
            continue
        if _same(other, best) and _same(found, best):
            return f"the best that was found is the {name} subnet, which needs no search"
        keeps = all(other[key] <= limit for key, limit in results["budgets"].items())
        if keeps and not _better(objective, best, other):
            what = "the best" if _better(objective, other, found) else "as good as the best"
            return (
                f"the {name} subnet, which needs no search, is {what}, and the search alone found {objective} "
                f"{found[objective]:.4f}: a longer search may find more; or the supernet's training does not separate "
                "its subnets"
            )
    return None


def _same(one: Row, other: Row) -> bool:
    return Subnet.from_dict(one["architecture"]) == Subnet.from_dict(other["architecture"])


def _better(objective: str, one: Row, other: Row) -> bool:
    sign = 1 if objective == "loss" else -1
    return sign * one[objective] < sign * other[objective]


def round_line(found: dict[str, Any]) -> str:
    """Return a line about a LINAS batch and the predictor that chose it."""
    tau = "undefined" if found["kendall_tau"] is None else f"{found['kendall_tau']:.2f}"
    return (
        f"batch {found['batch']}: {found['judged']} judged, best {found['best']:.4f}; {found['predictor']} "
        f"predicted the batch with a mean error of {found['mae']:.4f}, Kendall's tau {tau}"
    )


def placements_table(placements: dict[str, dict[str, float]]) -> str:
    """Return a table of the best subnet all on the device, all on the server, and split."""
    keys = list(placements["split"])
    rows = [[name, *(f"{found[key]:.2f}" for key in keys)] for name, found in placements.items()]
    return aligned([["the best on", *keys], *rows])


def slower_split(placements: dict[str, dict[str, float]]) -> str | None:
    """Return a warning if one machine alone is faster, as is often the case."""
    fastest = min(placements, key=lambda name: placements[name]["total_ms"])
    if fastest == "split":
        return None
    return f"split is not the fastest: the best subnet takes less time all on the {fastest}"
