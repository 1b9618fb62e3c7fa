"""The results of a search: the best subnet, the front as data, and plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mos_fairseq.figures import new_figure, save_figure
from mos_fairseq.files import write_atomically
from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.nas.page import AXES, Row, write_page
from mos_fairseq.search_space import Subnet


def report(
    candidates: Candidates,
    best: Subnet | None,
    cost: str | Sequence[str],
    objective: str,
    examined: Sequence[Subnet] | None = None,
) -> dict[str, Any]:
    """Return best subnet, front and number of examined subnets of this search, as plain data.

    ``best`` and ``front`` are of all judged subnets that keep the budgets; ``algorithm_best`` is what the algorithm
    found, ``algorithm_front`` the front of what it examined, ``judged`` how many subnets these were, and
    ``within_budgets`` how many of all judged ones keep the budgets.

    Args:
        best: the subnet that the algorithm chose; None for the lowest loss. Of equally good ones, the cheapest is it.
        cost: the cost that the front trades the objective against; with several, two-dimensional plots show the first.
        examined: the subnets that the algorithm examined, if others were judged after it; None for all.
    """
    from mos_fairseq.nas.pareto import front  # late: it imports pymoo, and a command's table needs this module

    costs = [cost] if isinstance(cost, str) else list(cost)
    known = candidates.known
    kept = [subnet for subnet in candidates.seen.values() if candidates.feasible(subnet)]
    mine = kept if examined is None else list(examined)
    found = _cheapest(candidates, best or min(mine, key=lambda subnet: known[subnet.key]), mine, costs[0])
    keys = {subnet.key for subnet in mine}
    others = [subnet for subnet in kept if subnet.key not in keys]
    chosen = min([found, *others], key=lambda subnet: known[subnet.key])
    return {
        "best": row(candidates, _cheapest(candidates, chosen, kept, costs[0]), objective),
        "algorithm_best": row(candidates, found, objective),
        "front": [row(candidates, subnet, objective) for subnet in front(candidates, kept, costs)],
        "algorithm_front": [row(candidates, subnet, objective) for subnet in front(candidates, mine, costs)],
        "judged": len(mine),
        "within_budgets": len(kept),
        "objective": objective,
        "cost": costs[0],
        **({"costs": costs} if len(costs) > 1 else {}),
    }


def _cheapest(candidates: Candidates, best: Subnet, judged: Sequence[Subnet], cost: str) -> Subnet:
    """Return the cheapest of the ``judged`` subnets as good as ``best``; accuracies are often equal."""
    known = candidates.known
    equal = [best, *(subnet for subnet in judged if known[subnet.key] == known[best.key])]
    return min(zip(equal, candidates.costs_of(equal), strict=True), key=lambda pair: pair[1][cost])[0]


def row(candidates: Candidates, subnet: Subnet, objective: str) -> Row:
    """Return quality, costs and architecture of one subnet."""
    quality = abs(candidates.known[subnet.key])
    return {objective: quality} | candidates.costs_of([subnet])[0] | {"architecture": subnet.to_dict()}


def front_rows(results: Mapping[str, Any], number: int) -> list[Row]:
    """Return up to ``number`` rows over the front's whole range: the rows nearest to equidistant costs."""
    rows, cost = results["front"], results["cost"]
    low, high = rows[0][cost], rows[-1][cost]
    steps = [low + (high - low) * step / (number - 1) for step in range(number)]
    nearest = {min(range(len(rows)), key=lambda index: abs(rows[index][cost] - step)) for step in steps}
    return [rows[index] for index in sorted(nearest)]


def add_measured(results: dict[str, Any], measured: Mapping[str, float]) -> None:
    """Add ``measured_latency_ms`` to the rows whose canonical key is in ``measured``."""
    for found in (results["best"], results["algorithm_best"], *results["front"], *results["compared"].values()):
        key = Subnet.from_dict(found["architecture"]).key
        if key in measured:
            found["measured_latency_ms"] = measured[key]


def write_results(output: Path, results: dict[str, Any], seen: list[Row], checkpoint: str = "CHECKPOINT") -> None:
    """Write ``best.yaml``, ``front.jsonl``, ``search.json``, ``front.png``, ``front.html`` and ``plotly.min.js`` into
    the folder ``output``, and ``uniform.yaml`` if ``results["compared"]`` has a uniform subnet.

    Args:
        seen: rows (see :func:`row`) of all judged subnets that keep the budgets.
        checkpoint: the supernet's checkpoint, for the page's export command.

    Raises:
        InputError: a file cannot be written.
    """
    (output / "uniform.yaml").unlink(missing_ok=True)  # from an earlier search
    for name, found in {"best": results["best"], "uniform": results.get("compared", {}).get("uniform")}.items():
        if found is not None:
            Subnet.from_dict(found["architecture"]).save(output / f"{name}.yaml")
    lines = [json.dumps(found, allow_nan=False) for found in results["front"]]
    write_atomically(output / "front.jsonl", "".join(line + "\n" for line in lines))
    write_atomically(output / "search.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    plot_front(results, seen, output / "front.png")
    write_page(results, seen, output / "front.html", checkpoint)


def plot_front(results: dict[str, Any], seen: list[Row], path: Path) -> None:
    """Plot all judged subnets within the budgets, their front and the best, as a PNG."""
    cost, objective = results["cost"], results["objective"]
    figure = new_figure(6, 4)
    axes = figure.add_subplot()

    def points(rows: list[Row]) -> tuple[list[float], list[float]]:
        return [found[cost] for found in rows], [found[objective] for found in rows]

    axes.scatter(*points(seen), s=8, color="0.7", label="judged subnets")
    axes.plot(*points(results["front"]), marker="o", markersize=4, label="front")
    axes.plot(*points([results["best"]]), marker="*", markersize=12, linestyle="", label="best")
    if (budget := results.get("budgets", {}).get(cost)) is not None:
        axes.axvline(budget, color="0.4", linestyle="--", linewidth=1, label="budget")
    axes.set(xlabel=AXES[cost], ylabel=AXES[objective])
    axes.legend()
    save_figure(figure, path)
