"""The neighbourhood of a budget: holes without any subnet's cost, and the gain from a slightly larger budget."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.nas.constraints import Constraint
from mos_fairseq.search_space import Subnet

MORE = 0.1  # share of the budgets
_DRAWS = 2000
_WIDE = 0.05  # share of the budget; a narrower gap is the usual distance of neighbours
_JUDGED = 8


@dataclass(frozen=True)
class Hole:
    """A budget in a gap: no examined subnet costs more than ``below`` and less than ``above``."""

    budget: Constraint
    below: float
    above: float
    looked_at: int

    def __str__(self) -> str:
        return (
            f"{self.budget} lies in a hole of the search space: of {self.looked_at:,} subnets, none costs between "
            f"{self.below:.6g} and {self.above:.6g}; every budget in between gives the same subnet"
        )


def holes(candidates: Candidates, subnets: Iterable[Subnet] = ()) -> list[Hole]:
    """Return the budgets that lie in a hole of the space, a gap wider than 5 % of the budget.

    ``subnets``, all subnets that the search has seen, and some thousand draws over the whole range of costs are
    examined.
    """
    rng = random.Random("holes")
    drawn = [candidates.space.sample(rng, tilt=rng.random()) for _ in range(_DRAWS)]
    every = {subnet.key: subnet for subnet in (*subnets, *candidates.seen.values(), *drawn)}
    costs = candidates.costs_of(list(every.values()))
    found = []
    for budget in candidates.constraints:
        values = [cost[budget.key] for cost in costs]
        below = max((value for value in values if value <= budget.limit), default=None)
        above = min((value for value in values if value > budget.limit), default=None)
        if below is not None and above is not None and above - below > _WIDE * budget.limit:
            found.append(Hole(budget, below, above, len(every)))
    return found


def most_beyond(has_budgets: bool) -> int:
    """Return how many subnets :func:`beyond` judges at most."""
    return _JUDGED if has_budgets else 0


def beyond(candidates: Candidates, best: Subnet) -> Subnet | None:
    """Return the best subnet that misses the budgets by up to 10 %; None if there is none.

    Candidates are subnets judged before, and subnets that differ from ``best`` in a single entry, of which the largest
    are judged.
    """
    if not candidates.constraints:
        return None
    vector, near = candidates.genes.encode(best), []
    for slot, size in enumerate(candidates.genes.sizes):
        changed = [(*vector[:slot], index, *vector[slot + 1 :]) for index in range(size) if index != vector[slot]]
        near += [candidates.genes.decode(other) for other in changed]
    near = _within(candidates, near)
    near.sort(key=lambda s: (-candidates.costs_of([s])[0]["params_without_embeddings"], s.key))
    chosen = near[:_JUDGED] + _within(candidates, candidates.seen.values())
    losses = candidates.losses(chosen)
    return min(zip(losses, chosen, strict=True), key=lambda pair: pair[0])[1] if chosen else None


def _within(candidates: Candidates, subnets: Iterable[Subnet]) -> list[Subnet]:
    """Return the subnets that miss the budgets by up to 10 %, each once."""
    distinct = list({subnet.key: subnet for subnet in subnets}.values())
    costs = candidates.costs_of(distinct)
    return [s for s, cost in zip(distinct, costs, strict=True) if 0 < candidates.excess(cost) <= MORE]
