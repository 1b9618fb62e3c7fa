"""LINAS (arXiv 2202.12954), DyNAS-T's search: batches of subnets are judged. A quality predictor, fitted to all
judgements so far, chooses the next batch by a search on its predictions, which cost nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.nas.evolution import EvolutionOptions, evolve
from mos_fairseq.nas.genes import Vector
from mos_fairseq.nas.names import INNER_SEARCHES, QUALITY_PREDICTORS
from mos_fairseq.nas.pareto import ParetoOptions, front, pareto_search, spread
from mos_fairseq.nas.surrogate import QualityPredictor, agreement
from mos_fairseq.search_space import Subnet


@dataclass(frozen=True)
class LinasOptions:
    """DyNAS-T's algorithm and batch size.

    Args:
        population_size: subnets of a batch; the first batch is random.
        iterations: batches after the first.
        inner_search: search on predictions: ``evolution``, for the best subnet within the budgets, or ``nsga2``, for
            the front of quality against ``objective``.
        inner_evaluations: largest number of predictions of a search.
        quality_predictor: one of ``QUALITY_PREDICTORS``.
        random_share: share of each later batch that is drawn at random, in case the predictor is wrong.

    Raises:
        InputError: a number is out of range, or a name is unknown.
    """

    objective: str = "latency_ms"
    population_size: int = 50
    iterations: int = 5
    inner_search: str = "evolution"
    inner_evaluations: int = 2000
    quality_predictor: str = "auto"
    random_share: float = 0.1
    seed: int = 1

    def __post_init__(self) -> None:
        at_least(2, population_size=self.population_size)
        at_least(0, iterations=self.iterations)
        at_least(100, inner_evaluations=self.inner_evaluations)
        for name, allowed in (("inner_search", INNER_SEARCHES), ("quality_predictor", QUALITY_PREDICTORS)):
            if (value := getattr(self, name)) not in allowed:
                raise InputError(f"{name} is {value}: allowed are {', '.join(allowed)}")
        if not 0 <= self.random_share <= 1:
            raise InputError(f"random_share is {self.random_share}: allowed are numbers from 0 to 1")
        if not 0 <= self.seed < 2**32 - 2**16:  # numpy's limit, with room for one seed per iteration
            raise InputError(f"seed is {self.seed}: allowed are whole numbers from 0 to below 2^32 - 2^16")

    @property
    def most_subnets(self) -> int:
        """Return the number of judged subnets if the space has as many."""
        return self.population_size * (1 + self.iterations)


def linas_search(
    candidates: Candidates,
    options: LinasOptions,
    on_generation: Callable[[int, float], object] = lambda n, loss: 0,
    on_batch: Callable[[dict[str, Any]], object] = lambda record: 0,
) -> list[Subnet]:
    """Return the best judged subnet alone, or with ``nsga2`` the front of the judged subnets.

    The result depends on the options, the candidates' judgements and this machine's arithmetic only. A run that starts
    with the judgements of an interrupted run reaches the same result without judging anything twice.

    Args:
        on_batch: called after each batch but the first with a record of the predictor that chose it: ``batch``,
            ``judged`` (so far), ``best`` (loss so far), ``predictor`` (its family), and its ``mae`` and ``kendall_tau``
            on the batch, which was new to it.
    """
    genes, rng = candidates.genes, random.Random(f"linas/{options.seed}")
    batch = candidates.first(options.population_size, rng)
    judged: list[Vector] = []
    predictor: QualityPredictor | None = None
    for iteration in range(options.iterations + 1):
        losses = candidates.losses([genes.decode(vector) for vector in batch])
        judged += batch
        best = min(candidates.known[key] for key in candidates.seen)
        on_generation(iteration, best)
        if predictor is not None:
            found = agreement(np.array(losses), predictor.predict(genes.features(batch)))
            so_far = {"batch": iteration, "judged": len(candidates.seen), "best": best}
            on_batch(so_far | {"predictor": predictor.family} | found)
        if iteration == options.iterations:
            break
        seed = options.seed + iteration + 1
        y = np.array([candidates.known[genes.decode(vector).key] for vector in judged])
        predictor = QualityPredictor(genes.features(judged), y, options.quality_predictor, seed, genes.num_totals)
        batch = _next_batch(candidates, options, predictor, rng, seed)
        if not batch:  # all subnets have been judged
            break
    subnets = list(candidates.seen.values())
    if options.inner_search == "nsga2":
        return front(candidates, subnets, options.objective)
    return [min(subnets, key=lambda subnet: candidates.known[subnet.key])]


def _search_predictions(
    candidates: Candidates, options: LinasOptions, predictor: QualityPredictor, seed: int
) -> Candidates:
    """Return candidates with the predictions of a new search that starts from the best judged subnets; in a small
    space, with the predictions of all subnets within the budgets."""
    genes = candidates.genes

    def predict(subnets: Sequence[Subnet]) -> list[float]:
        return predictor.predict(genes.features([genes.encode(subnet) for subnet in subnets])).tolist()

    best = sorted(candidates.seen.values(), key=lambda subnet: candidates.known[subnet.key])
    most = options.inner_evaluations
    # costs are exact, and the cache is shared: the same subnets recur in each search
    seeds = best[: min(options.population_size, most) // 2]
    inner = replace(candidates, evaluate=predict, known={}, seen={}, seeds=seeds)
    inner.genes = genes
    if candidates.space.size <= most:
        inner.losses([subnet for subnet in candidates.space.iterate() if candidates.feasible(subnet)])
    elif options.inner_search == "nsga2":
        generations = 1 + (most - max(50, len(seeds))) // 50
        pareto_search(inner, ParetoOptions(options.objective, 50, generations, seed))
    else:
        settings = EvolutionOptions(seed=seed)
        if most < settings.population_size + settings.mutations + settings.crossovers:
            settings = replace(settings, population_size=most // 2, mutations=most // 4, crossovers=most // 4)
        born, first = settings.mutations + settings.crossovers, max(settings.population_size, len(seeds))
        rounds = (most - first) // born
        evolve(inner, replace(settings, iterations=rounds))
    return inner


def _next_batch(
    candidates: Candidates, options: LinasOptions, predictor: QualityPredictor, rng: random.Random, seed: int
) -> list[Vector]:
    """Return the best unjudged subnets by prediction, and some random ones."""
    genes = candidates.genes

    number = options.population_size - round(options.random_share * options.population_size)
    inner = _search_predictions(candidates, options, predictor, seed)
    unseen = [subnet for key, subnet in inner.seen.items() if key not in candidates.seen]
    if options.inner_search == "nsga2":
        costs = [found[options.objective] for found in candidates.costs_of(unseen)]
        points = np.column_stack([inner.losses(unseen), costs])
        chosen = [unseen[index] for index in spread(points, number)]
    else:
        chosen = sorted(unseen, key=lambda subnet: inner.known[subnet.key])[:number]
    batch = [genes.encode(subnet) for subnet in chosen]
    seen = [genes.encode(subnet) for subnet in candidates.seen.values()]
    return batch + candidates.draw(options.population_size - len(batch), genes.random, rng, avoid=seen + batch)
