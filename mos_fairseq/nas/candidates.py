"""The interface of search algorithms: is a subnet within the budgets, and how good is it? Each is judged once."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from mos_fairseq.errors import InputError
from mos_fairseq.nas.constraints import Constraint
from mos_fairseq.nas.genes import GeneSpace, Vector
from mos_fairseq.search_space import SearchSpace, Subnet

Costs = dict[str, float]
_MOST_COSTS = 500_000  # largest number of cached costs
_TRIES = 200  # random draws before a candidate is moved towards the cheapest subnet


@dataclass
class Candidates:
    """Judge subnets of ``space``.

    Args:
        costs: maps subnets to their costs by key; it has every key that constraints and objectives name.
        evaluate: maps subnets to their losses (lower is better); called with new subnets only, which are added to
            ``seen`` first.
        constraints: budgets to keep.
        known: losses by canonical key from earlier runs; it grows.
        seeds: subnets of the space to start from; those that miss a constraint are left out.
        part: what ``space`` is a part of, for messages: " with …" or empty.
    """

    space: SearchSpace
    costs: Callable[[Sequence[Subnet]], list[Costs]]
    evaluate: Callable[[Sequence[Subnet]], list[float]]
    constraints: Sequence[Constraint] = ()
    known: dict[str, float] = field(default_factory=dict)
    seen: dict[str, Subnet] = field(default_factory=dict)
    seeds: Sequence[Subnet] = ()
    part: str = ""
    _costs: dict[str, Costs] = field(default_factory=dict)
    _reachable: Vector | None = None

    def __post_init__(self) -> None:
        self.genes = GeneSpace(self.space)

    def costs_of(self, subnets: Sequence[Subnet]) -> list[Costs]:
        """Return the costs of each subnet, cached up to far more subnets than a search looks at."""
        if len(self._costs) > _MOST_COSTS:
            self._costs.clear()
        new = list({s.key: s for s in subnets if s.key not in self._costs}.values())
        if new:
            self._costs |= {subnet.key: found for subnet, found in zip(new, self.costs(new), strict=True)}
        return [self._costs[subnet.key] for subnet in subnets]

    def feasible(self, subnet: Subnet) -> bool:
        """Return whether all constraints are kept."""
        return self.excess(self.costs_of([subnet])[0]) <= 0

    def excess(self, costs: Mapping[str, float]) -> float:
        """Return the largest excess over a constraint, relative to its limit; 0 or less if all are kept."""
        return max((constraint.excess(costs) for constraint in self.constraints), default=-1.0)

    def losses(self, subnets: Sequence[Subnet]) -> list[float]:
        """Return the loss of each subnet; new ones are evaluated once, in a single call."""
        new = list({s.key: s for s in subnets if s.key not in self.known}.values())
        self.seen |= {subnet.key: subnet for subnet in subnets}
        if new:
            self.known |= {subnet.key: loss for subnet, loss in zip(new, self.evaluate(new), strict=True)}
        return [self.known[subnet.key] for subnet in subnets]

    def cheapest(self) -> Vector:
        """Return the vector to move candidates to: the smallest subnet, or one with lower constrained costs.

        Costs grow with the sizes in every dimension except the number of heads, which may change latency either way. So
        single entries are changed as long as that lowers the largest excess.
        """
        return self._cheapest_in(self.constraints)

    def _cheapest_in(self, constraints: Sequence[Constraint]) -> Vector:
        best = self.genes.encode(self.space.smallest())
        lowest = self._excess_of(best, constraints)
        improved = bool(constraints)
        while improved:
            improved = False
            for slot, size in enumerate(self.genes.sizes):
                for index in range(size):
                    vector = (*best[:slot], index, *best[slot + 1 :])
                    if (excess := self._excess_of(vector, constraints)) < lowest - 1e-9:
                        best, lowest, improved = vector, excess, True
        return best

    def _excess_of(self, vector: Vector, constraints: Sequence[Constraint]) -> float:
        costs = self.costs_of([self.genes.decode(vector)])[0]
        return max((constraint.excess(costs) for constraint in constraints), default=-1.0)

    def check_reachable(self) -> Vector:
        """Return the cheapest vector.

        Raises:
            InputError: no subnet keeps the constraints; the message has the smallest reachable values.
        """
        if self._reachable is not None:
            return self._reachable
        cheapest = self.cheapest()
        if self._excess_of(cheapest, self.constraints) <= 0:
            self._reachable = cheapest
            return cheapest
        wanted, missed = ", ".join(map(str, self.constraints)), []
        for constraint in self.constraints:  # separately: the cheapest overall is not the cheapest in each
            subnet = self.genes.decode(self._cheapest_in([constraint]))
            least = self.costs_of([subnet])[0]
            if constraint.excess(least) > 0:
                missed.append((constraint, f"{constraint.key} {least[constraint.key]:.6g}"))
        if missed:
            wanted = ", ".join(str(constraint) for constraint, _ in missed)
            reached = ", ".join(text for _, text in missed)
            raise InputError(f"constraint {wanted}: no subnet{self.part} keeps it, the smallest reachable is {reached}")
        costs = self.costs_of([self.genes.decode(cheapest)])[0]
        nearest = ", ".join(f"{constraint.key} {costs[constraint.key]:.6g}" for constraint in self.constraints)
        raise InputError(f"constraint {wanted}: each can be kept alone, not together; the nearest is {nearest}")

    def kept_seeds(self) -> list[Vector]:
        """Return the seeds that keep the constraints, each once."""
        kept = {seed.key: self.genes.encode(seed) for seed in self.seeds if self.feasible(seed)}
        return list(kept.values())

    def first(self, number: int, rng: random.Random) -> list[Vector]:
        """Return all seeds that keep the constraints, filled up with random vectors to ``number``."""
        self.check_reachable()
        seeds = self.kept_seeds()
        return seeds + self.draw(max(0, number - len(seeds)), self.genes.random, rng, avoid=seeds)

    def draw(
        self, number: int, propose: Callable[[random.Random], Vector], rng: random.Random, avoid: Sequence[Vector] = ()
    ) -> list[Vector]:
        """Return up to ``number`` feasible vectors of distinct subnets, without the subnets of vectors in ``avoid``.

        Proposals that miss a constraint are drawn again; if that seldom helps, they are moved step by step towards the
        cheapest subnet. Fewer vectors are returned if the space seems to have no more.
        """
        taken = {self.genes.decode(vector).key for vector in avoid}
        found: list[Vector] = []
        for _ in range(number):
            vector = self.draw_one(propose, rng, taken)
            if vector is None:
                break
            taken.add(self.genes.decode(vector).key)
            found.append(vector)
        return found

    @overload
    def draw_one(self, propose: Callable[[random.Random], Vector], rng: random.Random) -> Vector: ...

    @overload
    def draw_one(
        self, propose: Callable[[random.Random], Vector], rng: random.Random, taken: Collection[str]
    ) -> Vector | None: ...

    def draw_one(
        self, propose: Callable[[random.Random], Vector], rng: random.Random, taken: Collection[str] = ()
    ) -> Vector | None:
        """Return a feasible vector as :meth:`draw` does, of a subnet whose key is not ``taken``; None if none is
        found."""
        cheapest = self.check_reachable()
        for _ in range(_TRIES):
            vector = propose(rng)
            subnet = self.genes.decode(vector)
            if subnet.key not in taken and self.feasible(subnet):
                return vector
        for _ in range(_TRIES):
            vector = propose(rng)
            while not self.feasible(subnet := self.genes.decode(vector)):
                vector = self.genes.towards(vector, cheapest, rng)
            if subnet.key not in taken:
                return vector
        return None
