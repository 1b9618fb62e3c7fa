#!/usr/bin/env python3
"""The subnets of run.sh's supernets: compare.py WORK_DIR BUDGET SEED...

Evolution searches each supernet within the budget on the validation set; the controller's answer needs no search.
Prints a table, and writes rows.json: losses on the test set (bits a token), and how many subnets were judged.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from pathlib import Path
from typing import Any

logging.disable(logging.INFO)

from mos_fairseq.checkpoints import read_supernet, subnet_of  # noqa: E402
from mos_fairseq.cost import subnet_cost  # noqa: E402
from mos_fairseq.evaluation import EvaluationOptions, SubnetEvaluator  # noqa: E402
from mos_fairseq.nas import Candidates, Constraint, EvolutionOptions, evolve  # noqa: E402
from mos_fairseq.search_space import Subnet  # noqa: E402

EVOLUTION = EvolutionOptions(population_size=30, parents=10, mutations=15, crossovers=15, iterations=4)


def costs(subnets: list[Subnet]) -> list[dict[str, Any]]:
    """FLOPs of each subnet."""
    return [subnet_cost(subnet).to_dict() for subnet in subnets]


def search(checkpoint: Path, data: str, budget: Constraint) -> tuple[Subnet, int]:
    """Evolution's best, and how many subnets it judged."""
    evaluator = SubnetEvaluator(str(checkpoint), data, EvaluationOptions())
    (largest,) = costs([evaluator.space.largest()])
    candidates = Candidates(
        evaluator.space, costs, lambda subnets: [evaluator.evaluate(s) for s in subnets], [budget.of_largest(largest)]
    )
    return evolve(candidates, EVOLUTION), len(candidates.seen)


def rows_of(work: Path, seed: str, budget: Constraint) -> list[dict[str, Any]]:
    """Of both supernets of one seed."""
    data, found = str(work / "data-bin"), []
    for name in ("sandwich", "controller"):
        checkpoint = work / f"{name}-{seed}" / "checkpoint_last.pt"
        best, judged = search(checkpoint, data, budget)
        tested = SubnetEvaluator(str(checkpoint), data, EvaluationOptions(valid_subset="test"))
        answer = subnet_of(read_supernet(work / f"controller-{seed}" / "checkpoint_last.pt"), "controller")
        subnets = {"evolution": best, "answer": answer}
        subnets |= {"largest": tested.space.largest(), "smallest": tested.space.smallest()}
        for subnet_name, subnet in subnets.items():
            row = {"seed": int(seed), "supernet": name, "subnet": subnet_name}
            row |= {"loss": round(tested.evaluate(subnet), 4)}
            row |= {"judged": judged if subnet_name == "evolution" else 0, "architecture": subnet.to_dict()}
            found.append(row | {"cost": costs([subnet])[0]["flops_without_output_projection"]})
    return found


def main(folder: str, budget: str, *seeds: str) -> None:
    """Entry point."""
    work = Path(folder)
    rows = [row for seed in seeds for row in rows_of(work, seed, Constraint.parse(budget))]
    (work / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("test loss | " + " | ".join(("evolution's best", "controller's answer", "largest", "smallest", "judged")))
    for name in ("sandwich", "controller"):
        mine = [row for row in rows if row["supernet"] == name]
        cells = []
        for subnet in ("evolution", "answer", "largest", "smallest"):
            losses = [row["loss"] for row in mine if row["subnet"] == subnet]
            cells.append(f"{statistics.mean(losses):.3f} ({', '.join(f'{loss:.3f}' for loss in losses)})")
        judged = [row["judged"] for row in mine if row["subnet"] == "evolution"]
        print(f"{name} | " + " | ".join(cells) + f" | {', '.join(map(str, judged))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
