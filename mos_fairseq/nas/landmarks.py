"""Subnets that need no search, to compare a search's result with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.nas.constraints import Constraint
from mos_fairseq.search_space import SearchSpace, Subnet

_MOST = 5000  # largest number of uniform subnets whose costs are computed
_GROUPS = 12
_OTHERS = 8


def uniform_subnets(space: SearchSpace, most: int = _MOST) -> list[Subnet]:
    """Return subnets whose layers of a stack are equal, as in manual scaling: all, or ``most`` draws of more."""
    dimensions = space.dimensions
    choices = [space[dimension.key] for dimension in dimensions]
    if prod(map(len, choices)) <= most:
        chosen: list[Sequence[Any]] = list(product(*choices))
    else:
        rng = random.Random("uniform")
        chosen = [[values[int(rng.random() * len(values))] for values in choices] for _ in range(most)]
    found = {}
    for values in chosen:
        sizes = dict(zip((dimension.key for dimension in dimensions), values, strict=True))
        subnet = Subnet.from_dict(space.smallest().to_dict() | sizes)
        found[subnet.key] = subnet
    return list(found.values())


def most_landmarks(constraints: Sequence[Constraint]) -> int:
    """Return how many subnets :func:`landmarks` judges at most."""
    return 2 + (_GROUPS + _OTHERS if constraints else 0)


def landmarks(candidates: Candidates) -> dict[str, Subnet]:
    """Return judged subnets by name: ``smallest``, ``largest`` and, if there are budgets, ``uniform``, which is
    :func:`best_uniform`."""
    space = candidates.space
    named = {"smallest": space.smallest(), "largest": space.largest()}
    candidates.losses(list(named.values()))
    if candidates.constraints and (uniform := best_uniform(candidates)) is not None:
        named["uniform"] = uniform
    return named


def best_uniform(candidates: Candidates) -> Subnet | None:
    """Return the best uniform subnet within the budgets that manual scaling would find; None if none keeps them.

    For each choice of widths and depths (of more than 12, for some over the whole range of sizes) the largest subnet by
    parameters without embeddings is judged, of equal ones that with most heads and widest spans, and then the eight
    next ones of the best choice. Uniform subnets that the search has examined count, too.
    """
    uniform = uniform_subnets(candidates.space)
    kept = [
        ((-cost["params_without_embeddings"], -_capacity(subnet), subnet.key), subnet)
        for subnet, cost in zip(uniform, candidates.costs_of(uniform), strict=True)
        if candidates.excess(cost) <= 0
    ]
    coarse = [dimension.key for dimension in candidates.space.dimensions if not dimension.label]
    groups: dict[tuple, list[Subnet]] = {}
    for _, subnet in sorted(kept, key=lambda found: found[0]):
        groups.setdefault(tuple(subnet.values[key] for key in coarse), []).append(subnet)
    if not groups:
        return None
    chosen = list(groups.values())
    if len(chosen) > _GROUPS:
        chosen = [chosen[round(index * (len(chosen) - 1) / (_GROUPS - 1))] for index in range(_GROUPS)]
    first = [group[0] for group in chosen]
    losses = candidates.losses(first)
    group = chosen[losses.index(min(losses))]
    candidates.losses(group[1 : 1 + _OTHERS])
    seen = [subnet for _, subnet in kept if subnet.key in candidates.seen]
    return min(zip(candidates.losses(seen), seen, strict=True), key=lambda pair: (pair[0], pair[1].key))[1]


def _capacity(subnet: Subnet) -> int:
    """Return the sum of a subnet's sizes, spans and numbers of heads, which orders subnets of as many parameters."""
    return sum(sum(value) if isinstance(value, tuple) else value for value in subnet.amounts.values())
