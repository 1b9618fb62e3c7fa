"""Subnets as vectors for search algorithms: for each dimension of each possible layer, the index of a choice.

A vector has entries for absent layers, too (HAT, arXiv 2005.14187). So all vectors have the same length, and several
vectors may represent one subnet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from random import Random  # imported by name: a method is called random
from typing import Any

import numpy as np

from mos_fairseq.search_space import SearchSpace, Subnet

Vector = tuple[int, ...]


class GeneSpace:
    """Vectors of a search space. ``sizes``: number of choices of each entry; index 0 is the largest choice."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        owners = space.family.owners
        # (key, layer) of each entry; the layer is None for a value that exists once per subnet
        self._slots: list[tuple[str, int | None]] = []
        for dimension in space.dimensions:
            stack = owners.get(dimension.key)
            layers = [None] if stack is None else range(space.max(stack.depth.key))
            self._slots += [(dimension.key, layer) for layer in layers]
        self.sizes: Vector = tuple(len(space[key]) for key, _ in self._slots)
        self._decoded = lru_cache(maxsize=50_000)(self._decode)  # searches decode the same vectors repeatedly

    def decode(self, vector: Sequence[int]) -> Subnet:
        """Return the subnet that ``vector`` represents."""
        return self._decoded(tuple(map(int, vector)))

    def _decode(self, vector: Vector) -> Subnet:
        values: dict[str, Any] = {}
        for (key, layer), index in zip(self._slots, vector, strict=True):
            value = self.space[key][index]
            values[key] = value if layer is None else (*values.get(key, ()), value)
        return Subnet(self.space.family, **values, **self.space.constants)

    def encode(self, subnet: Subnet) -> Vector:
        """Return a vector of ``subnet``; entries of absent layers are 0."""
        result = []
        for key, layer in self._slots:
            value = subnet[key]
            if layer is not None:
                value = value[layer] if layer < len(value) else None
            result.append(self.space[key].index(value) if value is not None else 0)
        return tuple(result)

    @cached_property
    def _depths(self) -> list[tuple[int, int] | None]:
        """For each entry of a layer, the entry that holds its stack's depth, and the layer's index."""
        owners, slots = self.space.family.owners, {key: index for index, (key, layer) in enumerate(self._slots)}
        return [None if layer is None else (slots[owners[key].depth.key], layer) for key, layer in self._slots]

    def features(self, vectors: Sequence[Vector]) -> np.ndarray:
        """Return regression features of ``vectors``, [n, f]; equal subnets have equal rows.

        There is one column for each choice of each entry: 1 if it is taken, 0 otherwise and for absent layers. The last
        ``num_totals`` columns count how many layers take each choice.
        """
        indices = np.array(vectors, dtype=int).reshape(len(vectors), len(self.sizes))
        columns = []
        for slot, (size, depth) in enumerate(zip(self.sizes, self._depths, strict=True)):
            chosen = indices[:, slot, None] == np.arange(size)
            if depth is not None:
                layers = np.array(self.space[self._slots[depth[0]][0]])[indices[:, depth[0]]]
                chosen &= (layers > depth[1])[:, None]
            if size > 1:
                columns.append(chosen.astype(float))
        totals = [sum(columns[i] for i in slots) for slots in self._layers_of.values()]
        return np.concatenate([np.zeros((len(vectors), 0)), *columns, *totals], axis=1)

    @cached_property
    def _layers_of(self) -> dict[str, list[int]]:
        """For each per-layer key, the positions of its entries among those with a choice."""
        found: dict[str, list[int]] = {}
        varied = [slot for slot, size in zip(self._slots, self.sizes, strict=True) if size > 1]
        for place, (key, layer) in enumerate(varied):
            if layer is not None:
                found.setdefault(key, []).append(place)
        return found

    @property
    def num_totals(self) -> int:
        """Number of columns of :meth:`features` that are totals over layers."""
        return sum(len(self.space[key]) for key in self._layers_of)

    def random(self, rng: Random) -> Vector:
        """Draw each entry uniformly."""
        return tuple(_draw(rng, size) for size in self.sizes)

    def mutate(self, vector: Vector, probability: float, rng: Random) -> Vector:
        """Redraw each entry with ``probability``."""
        return tuple(
            _draw(rng, size) if rng.random() < probability else index
            for index, size in zip(vector, self.sizes, strict=True)
        )

    @staticmethod
    def crossover(one: Vector, other: Vector, rng: Random) -> Vector:
        """Take each entry from either parent."""
        return tuple(a if rng.random() < 0.5 else b for a, b in zip(one, other, strict=True))

    def towards(self, vector: Vector, goal: Vector, rng: Random) -> Vector:
        """Return ``vector`` with one of the entries that differ from ``goal`` set to the goal's value."""
        different = [i for i, (a, b) in enumerate(zip(vector, goal, strict=True)) if a != b]
        if not different:
            return vector
        chosen = different[_draw(rng, len(different))]
        return (*vector[:chosen], goal[chosen], *vector[chosen + 1 :])


def _draw(rng: Random, size: int) -> int:
    # Python guarantees the same sequence in every version for random() only
    return int(rng.random() * size)
