"""What search algorithms ask: is a subnet within the budgets, and how good is it? Each subnet is judged once."""

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
_MOST_COSTS = 500_000  # that are kept
_TRIES = 200  # random draws before a candidate is led towards the cheapest subnet


@dataclass
class Candidates:
    """Judges subnets of ``space``.

    Args:
        costs: subnets -> their costs by key, those that constraints and objectives name.
        evaluate: subnets -> their losses (lower is better); called with subnets that it has not seen, which are in
            ``seen`` by then.
        constraints: budgets to keep.
        known: losses by canonical key, of earlier runs; grows.
        seeds: subnets of the space to begin with; those that miss a constraint are left out.
    """

    space: SearchSpace
    costs: Callable[[Sequence[Subnet]], list[Costs]]
    evaluate: Callable[[Sequence[Subnet]], list[float]]
    constraints: Sequence[Constraint] = ()
    known: dict[str, float] = field(default_factory=dict)
    seen: dict[str, Subnet] = field(default_factory=dict)
    seeds: Sequence[Subnet] = ()
    _costs: dict[str, Costs] = field(default_factory=dict)
    _reachable: Vector | None = None

    def __post_init__(self) -> None:
        self.genes = GeneSpace(self.space)

    def costs_of(self, subnets: Sequence[Subnet]) -> list[Costs]:
        """Costs of each subnet, computed once, unless far more are asked for than a search looks at."""
        if len(self._costs) > _MOST_COSTS:
            self._costs.clear()
        new = list({s.key: s for s in subnets if s.key not in self._costs}.values())
        if new:
            self._costs |= {subnet.key: found for subnet, found in zip(new, self.costs(new), strict=True)}
        return [self._costs[subnet.key] for subnet in subnets]

    def feasible(self, subnet: Subnet) -> bool:
        """Whether all constraints are kept."""
        return self.excess(self.costs_of([subnet])[0]) <= 0

    def excess(self, costs: Mapping[str, float]) -> float:
        """By how much, in parts of the limit, the constraint kept worst is missed; 0 or less if all are kept."""
        return max((constraint.excess(costs) for constraint in self.constraints), default=-1.0)

    def losses(self, subnets: Sequence[Subnet]) -> list[float]:
        """Losses of each subnet, evaluated once, in one call for all that are new."""
        new = list({s.key: s for s in subnets if s.key not in self.known}.values())
        self.seen |= {subnet.key: subnet for subnet in subnets}
        if new:
            self.known |= {subnet.key: loss for subnet, loss in zip(new, self.evaluate(new), strict=True)}
        return [self.known[subnet.key] for subnet in subnets]

    def cheapest(self) -> Vector:
        """The vector to lead candidates to: of the smallest subnet, or one cheaper still in what constraints name.

        Sizes make costs grow with every dimension but the number of heads, which may go either way in time; so single
        entries are changed as long as that lowers the worst excess.
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
        """The cheapest vector.

        Raises:
            InputError: no subnet was found that keeps the constraints; names the smallest values reachable.
        """
        if self._reachable is not None:
            return self._reachable
        cheapest = self.cheapest()
        if self._excess_of(cheapest, self.constraints) <= 0:
            self._reachable = cheapest
            return cheapest
        wanted, missed = ", ".join(map(str, self.constraints)), []
        for constraint in self.constraints:  # each alone: the cheapest in all is not the cheapest in each
            subnet = self.genes.decode(self._cheapest_in([constraint]))
            least = self.costs_of([subnet])[0]
            if constraint.excess(least) > 0:
                missed.append((constraint, f"{constraint.key} {least[constraint.key]:.6g}"))
        if missed:
            wanted = ", ".join(str(constraint) for constraint, _ in missed)
            reached = ", ".join(text for _, text in missed)
            raise InputError(f"constraint {wanted}: no subnet keeps it, the smallest reachable is {reached}")
        costs = self.costs_of([self.genes.decode(cheapest)])[0]
        nearest = ", ".join(f"{constraint.key} {costs[constraint.key]:.6g}" for constraint in self.constraints)
        raise InputError(f"constraint {wanted}: each can be kept alone, not together; the nearest is {nearest}")

    def kept_seeds(self) -> list[Vector]:
        """Those of the seeds that keep the constraints, each once."""
        kept = {seed.key: self.genes.encode(seed) for seed in self.seeds if self.feasible(seed)}
        return list(kept.values())

    def first(self, number: int, rng: random.Random) -> list[Vector]:
        """The seeds that keep the constraints, all of them, and as many random vectors as ``number`` leaves."""
        self.check_reachable()
        seeds = self.kept_seeds()
        return seeds + self.draw(max(0, number - len(seeds)), self.genes.random, rng, avoid=seeds)

    def draw(
        self, number: int, propose: Callable[[random.Random], Vector], rng: random.Random, avoid: Sequence[Vector] = ()
    ) -> list[Vector]:
        """Up to ``number`` feasible vectors of distinct subnets, none of them that of a vector in ``avoid``.

        Proposals that miss a constraint are drawn again and, where that seldom helps, led step by step towards the
        cheapest subnet. Fewer are returned where the space seems to hold no more.
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
        """A feasible vector as :meth:`draw` makes them, of a subnet whose key is not ``taken``; None where none is
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
