#!/usr/bin/env python3
"""The figures of run.sh.

compare.py budgets SPACE    three budgets between the smallest's and the largest's FLOPs
compare.py judged DIR       how many subnets a search judged
compare.py report DIR       ranks, losses and hypervolumes of all searches in DIR
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pymoo.indicators.hv import HV

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

from mos_fairseq.cost import subnet_cost  # noqa: E402
from mos_fairseq.search_space import SearchSpace, Subnet  # noqa: E402

COST = "flops_without_output_projection"


def budgets(space: SearchSpace) -> list[int]:
    """A quarter, a half and three quarters of the way from the smallest subnet's cost to the largest's."""
    low, high = (getattr(subnet_cost(subnet), COST) for subnet in (space.smallest(), space.largest()))
    return [round(low + part * (high - low)) for part in (0.25, 0.5, 0.75)]


def results(folder: Path) -> dict:
    """The outcome of one search."""
    return json.loads((folder / "search.json").read_text(encoding="utf-8"))


def judged_losses(folder: Path, space: SearchSpace) -> list[tuple[float, float]]:
    """(cost, loss) of all judged subnets of ``space``."""
    found = []
    for file in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        subnets = [Subnet.from_dict(json.loads(row["key"])) for row in rows]
        if len(rows) == space.size:
            found += [(getattr(subnet_cost(s), COST), row["loss"]) for s, row in zip(subnets, rows, strict=True)]
    return found


def best_of(run: dict[str, Any]) -> dict[str, Any]:
    """What the algorithm alone found; results of earlier versions have nothing else."""
    return run.get("algorithm_best", run["best"])


def front_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The front of what the algorithm examined."""
    return run.get("algorithm_front", run["front"])


def report_ranks(work: Path) -> None:
    """Where evolution's choices stand among all subnets within the budget."""
    space = SearchSpace.from_spec(str(Path(__file__).with_name("space.yaml")))
    everything = judged_losses(work / "judged", space)
    print(f"evolution on {len(everything)} subnets, all judged (rank of its choice, by seed):")
    for index, budget in enumerate(budgets(space)):
        losses = [loss for cost, loss in everything if cost <= budget]
        runs = [results(folder) for folder in sorted(work.glob(f"little-evolution-{index}-?"))]
        ranks = [1 + sum(loss < best_of(run)["loss"] for loss in losses) for run in runs]
        counts = [run["judged"] for run in runs]
        ranks_text = ", ".join(map(str, ranks))
        print(f"  {budget / 1e6:6.1f} MFLOPs: {ranks_text} of {len(losses)}, {min(counts)}-{max(counts)} judged")


def report_losses(work: Path) -> None:
    """The best loss within three budgets."""
    print("tiny, best loss within a budget (mean of the seeds; judged subnets):")
    for index, budget in enumerate(budgets(SearchSpace.from_spec("tiny"))):
        text = []
        for algorithm in ("evolution", "random"):
            runs = [results(folder) for folder in sorted(work.glob(f"tiny-{algorithm}-{index}-?"))]
            losses = [best_of(run)["loss"] for run in runs]
            count = statistics.mean(run["judged"] for run in runs)
            text.append(f"{algorithm} {statistics.mean(losses):.4f} ({count:.0f})")
        print(f"  {budget / 1e6:6.1f} MFLOPs: {', '.join(text)}")


def report_fronts(work: Path) -> None:
    """Hypervolumes, in parts of what a subnet of the lowest cost and the lowest loss found would have."""
    runs = {
        name: [results(folder) for folder in sorted(work.glob(f"tiny-{name}-front-?"))] for name in ("nsga2", "random")
    }
    points = np.array([(row[COST], row["loss"]) for found in runs.values() for run in found for row in front_of(run)])
    low, high = points.min(0), points.max(0)
    print("tiny, hypervolume of the front (by seed; judged subnets):")
    for name, found in runs.items():
        fronts = [np.array([(row[COST], row["loss"]) for row in front_of(run)]) for run in found]
        volumes = [float(HV(ref_point=np.ones(2))((front - low) / (high - low))) for front in fronts]
        text = ", ".join(f"{volume:.4f}" for volume in volumes)
        print(f"  {name}: {text}; mean {statistics.mean(volumes):.4f} ({found[0]['judged']})")


def main(command: str, target: str) -> None:
    """Command line."""
    if command == "budgets":
        print(*budgets(SearchSpace.from_spec(target)), sep="\n")
    elif command == "judged":
        print(results(Path(target))["judged"])
    else:
        for part in (report_ranks, report_losses, report_fronts):
            part(Path(target))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("budgets", "judged", "report"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
