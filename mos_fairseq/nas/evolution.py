"""Search for the best subnet within the budgets: HAT's evolution (arXiv 2005.14187), and random search to compare."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.nas.genes import Vector
from mos_fairseq.search_space import Subnet

_LISTED = 100_000  # largest space whose subnets are listed if drawing ends short


@dataclass(frozen=True)
class EvolutionOptions:
    """Options of HAT's evolution; the defaults are HAT's published settings.

    Args:
        population_size: random subnets of the first generation.
        parents: number of the best subnets, which stay and reproduce.
        mutations, mutation_prob: number of children that redraw each dimension with this probability.
        crossovers: number of children that take each dimension from either of two parents.
        iterations: generations after the first.

    Raises:
        InputError: a number is out of range.
    """

    population_size: int = 125
    parents: int = 25
    mutations: int = 50
    mutation_prob: float = 0.3
    crossovers: int = 50
    iterations: int = 30
    seed: int = 1

    def __post_init__(self) -> None:
        at_least(1, population_size=self.population_size, parents=self.parents)
        at_least(0, mutations=self.mutations, crossovers=self.crossovers, iterations=self.iterations, seed=self.seed)
        if not 0 < self.mutation_prob <= 1:
            raise InputError(f"mutation_prob is {self.mutation_prob}: allowed are numbers above 0 up to 1")
        if self.parents > self.population_size:
            raise InputError(f"parents is {self.parents}: allowed are at most population_size={self.population_size}")

    @property
    def most_subnets(self) -> int:
        """Return the number of judged subnets if no child occurs twice."""
        return self.population_size + self.iterations * (self.mutations + self.crossovers)


def evolve(
    candidates: Candidates, options: EvolutionOptions, on_generation: Callable[[int, float], object] = lambda n, loss: 0
) -> Subnet:
    """Return the best subnet found.

    The result depends on the options and the candidates' judgements only. A run that starts with the judgements of an
    interrupted run reaches the same result without judging anything twice.

    Args:
        on_generation: called with the generation's number, from 0, and the lowest loss so far.
    """
    genes, rng = candidates.genes, random.Random(f"evolution/{options.seed}")
    population = candidates.first(options.population_size, rng)
    for generation in range(options.iterations + 1):
        parents = _best(candidates, population, options.parents)
        on_generation(generation, candidates.losses([genes.decode(parents[0])])[0])
        if generation == options.iterations:
            break

        def mutate(rng: random.Random, parents: list[Vector] = parents) -> Vector:
            return genes.mutate(_pick(rng, parents), options.mutation_prob, rng)

        def cross(rng: random.Random, parents: list[Vector] = parents) -> Vector:
            return genes.crossover(_pick(rng, parents), _pick(rng, parents), rng)

        population = list(parents)
        population += candidates.draw(options.mutations, mutate, rng, avoid=population)
        population += candidates.draw(options.crossovers, cross, rng, avoid=population)
    return genes.decode(parents[0])


def _best(candidates: Candidates, population: list[Vector], number: int) -> list[Vector]:
    """Return the ``number`` vectors with the lowest losses; ties keep the order of the population."""
    losses = candidates.losses([candidates.genes.decode(vector) for vector in population])
    order = sorted(range(len(population)), key=lambda i: losses[i])
    return [population[i] for i in order[:number]]


def _pick(rng: random.Random, vectors: list[Vector]) -> Vector:
    return vectors[int(rng.random() * len(vectors))]


def random_search(candidates: Candidates, number: int, seed: int) -> Subnet:
    """Return the best of the seeds and of random subnets within the budgets: ``number`` in all, or all seeds if there
    are more. If the budgets leave fewer, all are judged, unless the space is too large to list (100,000)."""
    rng = random.Random(f"random/{seed}")
    space = candidates.space
    if number > space.size // 2:  # drawing would not find the last subnets
        candidates.check_reachable()
        vectors = _listed(candidates, rng)
        seeds = {candidates.genes.decode(vector).key for vector in candidates.kept_seeds()}
        vectors = sorted(vectors, key=lambda vector: candidates.genes.decode(vector).key not in seeds)
        vectors = vectors[: max(number, len(seeds))]
    else:
        vectors = candidates.first(number, rng)
        if len(vectors) < number and space.size <= _LISTED:  # nor would it find the last within tight budgets
            drawn = {candidates.genes.decode(vector).key for vector in vectors}
            others = (v for v in _listed(candidates, rng) if candidates.genes.decode(v).key not in drawn)
            vectors += islice(others, number - len(vectors))
    return candidates.genes.decode(_best(candidates, vectors, 1)[0])


def _listed(candidates: Candidates, rng: random.Random) -> list[Vector]:
    """Return all subnets of the space within the budgets, in random order."""
    subnets = list(candidates.space.iterate())
    kept = [s for s, cost in zip(subnets, candidates.costs_of(subnets), strict=True) if candidates.excess(cost) <= 0]
    return sorted(map(candidates.genes.encode, kept), key=lambda vector: rng.random())
