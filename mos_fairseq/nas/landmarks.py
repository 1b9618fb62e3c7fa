"""Subnets to compare a search's result with: some that need no search, and one from a slightly larger budget."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

from mos_fairseq.nas.budgets import beyond, most_beyond
from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.nas.constraints import Constraint
from mos_fairseq.search_space import SearchSpace, Subnet

_MOST = 5000  # largest number of uniform subnets whose costs are computed
_JUDGED = 8


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
    return 2 + (_JUDGED if constraints else 0) + most_beyond(bool(constraints))


def landmarks(candidates: Candidates, best: Subnet) -> dict[str, Subnet]:
    """Return judged subnets by name: ``smallest``, ``largest`` and, if there are budgets, ``uniform`` and ``beyond``.

    ``uniform`` is the best uniform subnet within the budgets, among the largest (by parameters without embeddings) and
    those that the search has seen. ``beyond`` is the best subnet near ``best`` for slightly larger budgets.
    """
    space = candidates.space
    named = {"smallest": space.smallest(), "largest": space.largest()}
    kept: list[Subnet] = []
    if candidates.constraints:
        uniform = uniform_subnets(space)
        costs = candidates.costs_of(uniform)
        sizes = {s.key: found["params_without_embeddings"] for s, found in zip(uniform, costs, strict=True)}
        kept = [s for s, found in zip(uniform, costs, strict=True) if candidates.excess(found) <= 0]
        kept.sort(key=lambda subnet: (-sizes[subnet.key], subnet.key))
        kept = [*kept[:_JUDGED], *(subnet for subnet in kept[_JUDGED:] if subnet.key in candidates.seen)]
    losses = candidates.losses([*named.values(), *kept])[len(named) :]
    if kept:
        named["uniform"] = min(zip(losses, kept, strict=True), key=lambda pair: pair[0])[1]
    if (more := beyond(candidates, best)) is not None:
        named["beyond"] = more
    return named
