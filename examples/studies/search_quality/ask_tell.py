#!/usr/bin/env python3
"""Another optimizer in the place of mos-search's: whatever proposes vectors and takes values.

    ask_tell.py [TABLE] [EVALUATIONS]

It is shown with pymoo's R-NSGA-II, which gathers the front around points that a user would like, here little
loss within half of the largest subnet's FLOPs, on the table of a space that was judged whole.
mos_fairseq.nas.Candidates gives any optimizer `genes.sizes` (choices of each entry), `genes.decode` (vector ->
subnet), `costs_of`, `excess` of the budgets (0 or less: kept), and `losses`, which judges each subnet once.
With a supernet, `evaluate` is `lambda subnets: [evaluator.evaluate(subnet) for subnet in subnets]` of a
SubnetEvaluator of mos_fairseq.evaluation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from pymoo.algorithms.moo.rnsga2 import RNSGA2
from pymoo.core.evaluator import Evaluator
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.problems.static import StaticProblem
from study import COST, costs  # beside this file

from mos_fairseq.nas import Candidates, front
from mos_fairseq.search_space import SearchSpace


def main(table: str, evaluations: int) -> None:
    """Ask, judge, tell."""
    data = json.loads(Path(table).read_text(encoding="utf-8"))
    space = SearchSpace.from_dict(data["space"])
    known = {subnet.key: loss for subnet, loss in zip(space.iterate(), data["losses"], strict=True)}
    candidates = Candidates(space, costs, lambda subnets: [known[subnet.key] for subnet in subnets])
    sizes = np.array(candidates.genes.sizes)
    problem = Problem(n_var=len(sizes), n_obj=2, xl=0, xu=sizes - 1, vtype=int)
    largest = costs([space.largest()])[0][COST]
    wish = np.array([[min(known.values()), largest / 2]])
    algorithm = RNSGA2(
        wish,
        pop_size=20,
        sampling=IntegerRandomSampling(),
        crossover=UniformCrossover(prob=0.9, repair=RoundingRepair()),
        mutation=PM(vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.setup(problem, termination=("n_gen", 1000), seed=1)
    while algorithm.has_next() and len(candidates.seen) < evaluations:
        asked = algorithm.ask()
        subnets = [candidates.genes.decode(vector) for vector in asked.get("X")]
        values = np.column_stack([candidates.losses(subnets), [found[COST] for found in candidates.costs_of(subnets)]])
        Evaluator().eval(StaticProblem(problem, F=values), asked)
        algorithm.tell(infills=asked)
    print(f"{len(candidates.seen)} subnets judged; those of the front nearest to {largest / 2e6:.0f} MFLOPs:")
    found = front(candidates, list(candidates.seen.values()), COST)
    for subnet in sorted(found, key=lambda subnet: abs(costs([subnet])[0][COST] - largest / 2))[:5]:
        print(f"{known[subnet.key]:.4f}  {costs([subnet])[0][COST] / 1e6:.1f} MFLOPs  {subnet.summary()}")


if __name__ == "__main__":
    main(*(sys.argv[1:2] or [str(Path(__file__).with_name("table.json"))]), int((sys.argv[2:3] or ["120"])[0]))
