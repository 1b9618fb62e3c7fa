"""Search for the front of quality against a cost: NSGA-II (Deb et al. 2002), by pymoo."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.indicators.hv import HV
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function
from pymoo.optimize import minimize
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.search_space import Subnet


@dataclass(frozen=True)
class ParetoOptions:
    """``objective``: the cost, or several, traded against the loss; the other names are NSGA-II's."""

    objective: str | tuple[str, ...] = "latency_ms"
    population_size: int = 50
    generations: int = 30
    seed: int = 1

    def __post_init__(self) -> None:
        at_least(2, population_size=self.population_size, generations=self.generations)
        if not 0 <= self.seed < 2**32:  # numpy's limit
            raise InputError(f"seed is {self.seed}: allowed are whole numbers from 0 to below 2^32")

    @property
    def most_subnets(self) -> int:
        """Return the number of judged subnets if no child occurs twice or misses a constraint."""
        return self.population_size * self.generations


class _SubnetProblem(Problem):
    """Loss and costs of vectors; missed constraints are pymoo's G. Only vectors that keep them are evaluated."""

    def __init__(self, candidates: Candidates, objective: str | Sequence[str]) -> None:
        sizes = np.array(candidates.genes.sizes)
        keys = _keys(objective)
        super().__init__(n_var=len(sizes), n_obj=1 + len(keys), n_ieq_constr=1, xl=0, xu=sizes - 1, vtype=int)
        self.candidates, self.keys = candidates, keys

    def _evaluate(self, x, out, *args, **kwargs) -> None:
        subnets = [self.candidates.genes.decode(vector) for vector in x]
        costs = self.candidates.costs_of(subnets)
        excess = np.array([self.candidates.excess(found) for found in costs])
        kept = [subnet for subnet, over in zip(subnets, excess, strict=True) if over <= 0]
        losses = dict(zip([s.key for s in kept], self.candidates.losses(kept), strict=True))
        worst = max(losses.values(), default=0.0)  # no effect: pymoo ranks vectors that keep the constraints first
        loss = [losses.get(subnet.key, worst) for subnet in subnets]
        out["F"] = np.column_stack([loss, [[found[key] for key in self.keys] for found in costs]])
        out["G"] = excess[:, None]


class _Redraw(Mutation):
    """Redraw each entry with probability 1/n: choices have no scale, unlike the integers of pymoo's own mutations."""

    def _do(self, problem, X, random_state=None, **kwargs):
        fresh = np.floor(random_state.random(X.shape) * (problem.xu + 1)).astype(X.dtype)
        return np.where(random_state.random(X.shape) < 1 / problem.n_var, fresh, X)


def pareto_search(
    candidates: Candidates, options: ParetoOptions, on_generation: Callable[[int, float], object] = lambda n, loss: 0
) -> list[Subnet]:
    """Return the front of all judged subnets, by rising cost (the first of several). Deterministic in the same sense as
    :func:`~mos_fairseq.nas.evolution.evolve`."""
    first = candidates.first(options.population_size, random.Random(f"nsga2/{options.seed}"))
    crossover = UniformCrossover(prob=0.9, repair=RoundingRepair())
    algorithm = NSGA2(
        pop_size=options.population_size,
        sampling=np.array(first, dtype=int),
        crossover=crossover,
        mutation=_Redraw(),
        eliminate_duplicates=True,
    )
    problem = _SubnetProblem(candidates, options.objective)

    def report(algorithm) -> None:
        on_generation(algorithm.n_gen - 1, min(candidates.known[key] for key in candidates.seen))

    minimize(problem, algorithm, ("n_gen", options.generations), seed=options.seed, callback=report, verbose=False)
    return front(candidates, list(candidates.seen.values()), options.objective)


def _keys(objective: str | Sequence[str]) -> tuple[str, ...]:
    return (objective,) if isinstance(objective, str) else tuple(objective)


def front(candidates: Candidates, subnets: Sequence[Subnet], objective: str | Sequence[str]) -> list[Subnet]:
    """Return the subnets that no other beats in loss and every cost, by rising cost (the first of several); of equal
    ones the first."""
    keys = _keys(objective)
    if len(keys) > 1:
        return _front_of_many(candidates, subnets, keys)
    objective = keys[0]
    losses, costs = _values(candidates, subnets, objective).T
    chosen, lowest = [], np.inf
    for index in np.lexsort((losses, costs)).tolist():  # stable; by cost, then by loss
        if losses[index] < lowest:
            chosen.append(subnets[index])
            lowest = losses[index]
    return chosen


def _front_of_many(candidates: Candidates, subnets: Sequence[Subnet], keys: Sequence[str]) -> list[Subnet]:
    losses = np.array(candidates.losses(subnets))
    points = np.column_stack([losses, [[found[key] for key in keys] for found in candidates.costs_of(subnets)]])
    _, first = np.unique(points, axis=0, return_index=True)
    first = np.sort(first)
    (best, *_) = NonDominatedSorting().do(points[first], only_non_dominated_front=False, n_stop_if_ranked=1)
    chosen = first[np.asarray(best)]
    order = np.lexsort((chosen, points[chosen, 0], points[chosen, 1]))
    return [subnets[index] for index in chosen[order].tolist()]


def spread(points: np.ndarray, number: int) -> list[int]:
    """Return indices of the best ``number`` of ``points`` [n, m], lower is better: whole fronts first, and from the
    first front that does not fit, the points with the largest crowding distance."""
    if not len(points) or number < 1:
        return []
    chosen: list[int] = []
    for indices in NonDominatedSorting().do(points, n_stop_if_ranked=number):
        room = number - len(chosen)
        if len(indices) > room:
            crowding = get_crowding_function("cd").do(points[indices], n_remove=len(indices) - room)
            indices = indices[np.argsort(-crowding, kind="stable")[:room]]
        chosen += indices.tolist()
        if len(chosen) == number:
            break
    return chosen


def hypervolume(candidates: Candidates, subnets: Sequence[Subnet], objective: str, worst: tuple[float, float]) -> float:
    """Return the area that ``subnets`` dominate below ``worst`` (loss, cost)."""
    return float(HV(ref_point=np.array(worst))(_values(candidates, subnets, objective)))


def _values(candidates: Candidates, subnets: Sequence[Subnet], objective: str) -> np.ndarray:
    costs = [found[objective] for found in candidates.costs_of(subnets)]
    return np.column_stack([candidates.losses(subnets), costs])
