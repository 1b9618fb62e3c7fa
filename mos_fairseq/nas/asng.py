"""Adaptive stochastic natural gradient (ASNG, arXiv 1905.08537): a categorical distribution for each entry of a vector.
It moves towards the better ones of a few drawn subnets, and adapts its step size to how far it trusts the direction."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mos_fairseq.errors import at_least
from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.nas.genes import Vector
from mos_fairseq.search_space import Subnet

_TRUST = 1.5  # alpha of the paper: required length of the path of steps, relative to a random walk's
# With 1, the paper's value, the distribution oscillates at its floor: after 2,000 and 3,000 draws on a separable
# landscape, 19 and 18 of 20 seeds had found the optimum; with 0.5 and with 0.3, all 20, from 800 draws on.
_FIRST_STEP = 0.5


class CategoricalASNG:
    """The distribution and its step size.

    Args:
        sizes: number of choices of each entry.

    Attributes:
        theta: probabilities of each entry's choices, [size] each. The floor is 1/(n (size - 1)), where n entries have a
            choice, so that no choice is given up for ever. With few entries, it is a tenth of 1/(size - 1): the paper's
            floor would not let two entries of two choices move.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.theta = [np.full(size, 1 / size) for size in self.sizes]
        self.path = [np.zeros(size - 1) for size in self.sizes]
        self.gamma, self.inverse_step = 0.0, 1.0

    @property
    def _free(self) -> int:
        return sum(size - 1 for size in self.sizes)

    def draw(self, rng: random.Random) -> Vector:
        """A vector."""
        return tuple(_pick(row, rng) for row in self.theta)

    def answer(self) -> Vector:
        """Return the most probable vector; among equals, the larger choice."""
        return tuple(int(np.argmax(np.round(row, 9))) for row in self.theta)

    def update(self, vectors: Sequence[Vector], losses: Sequence[float]) -> bool:
        """Move towards the vectors with low losses, and away from those with high ones. Return False if all losses are
        equal, and nothing moves."""
        utilities = _utilities(losses)
        if not self._free or not any(utilities):
            return False
        gradient = []
        for slot, (size, row) in enumerate(zip(self.sizes, self.theta, strict=True)):
            taken = np.array([[float(vector[slot] == index) for index in range(size)] for vector in vectors])
            gradient.append((np.array(utilities)[:, None] * (taken - row)).mean(0))
        # scaled by the square root of the Fisher matrix, so that a step's length means the same everywhere
        whitened = [
            g[:-1] / np.sqrt(row[:-1]) + np.sqrt(row[:-1]) * g[:-1].sum() / (row[-1] + np.sqrt(row[-1]))
            for g, row in zip(gradient, self.theta, strict=True)
        ]
        length = math.sqrt(sum(float((part**2).sum()) for part in whitened)) + 1e-8
        step = _FIRST_STEP / self.inverse_step
        self.theta = [row + step / length * g for row, g in zip(self.theta, gradient, strict=True)]
        beta = step / math.sqrt(self._free)
        kept, added = 1 - beta, math.sqrt(beta * (2 - beta))
        self.path = [kept * old + added * part / length for old, part in zip(self.path, whitened, strict=True)]
        self.gamma = kept**2 * self.gamma + beta * (2 - beta)
        squared = sum(float((part**2).sum()) for part in self.path)
        # at most the first step size: beta must stay below 1
        self.inverse_step = max(1.0, self.inverse_step * math.exp(beta * (self.gamma - squared / _TRUST)))
        self._keep_floor()
        return True

    def _keep_floor(self) -> None:
        entries = sum(size > 1 for size in self.sizes)
        for slot, size in enumerate(self.sizes):
            if size == 1:
                continue
            floor = min(1 / entries, 0.1) / (size - 1)
            row = np.maximum(self.theta[slot], floor)
            row -= (row.sum() - 1) * (row - floor) / (row.sum() - floor * size)
            self.theta[slot] = row / row.sum()

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, without rounding."""
        lists = {"theta": [row.tolist() for row in self.theta], "path": [part.tolist() for part in self.path]}
        return lists | {"gamma": self.gamma, "inverse_step": self.inverse_step}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CategoricalASNG:
        """Rebuild from :meth:`to_dict`. Raises ValueError for other data."""
        theta = [np.array(row, dtype=float) for row in data["theta"]]
        found = cls([len(row) for row in theta])
        found.theta, found.path = theta, [np.array(part, dtype=float) for part in data["path"]]
        found.gamma, found.inverse_step = float(data["gamma"]), float(data["inverse_step"])
        if [len(part) + 1 for part in found.path] != list(found.sizes) or not all(
            np.isfinite(row).all() and (row >= 0).all() and abs(row.sum() - 1) < 1e-6 for row in theta
        ):
            raise ValueError("its rows are no distributions")
        return found


def _pick(probabilities: np.ndarray, rng: random.Random) -> int:
    point = rng.random()
    for index, probability in enumerate(probabilities.tolist()):
        point -= probability
        if point < 0:
            return index
    return len(probabilities) - 1


def _utilities(losses: Sequence[float]) -> list[float]:
    """Return 1/m for the best m losses and -1/m for the worst m, where m is a quarter of them, at least one. Equal
    losses share the values of their places."""
    number = len(losses)
    best = math.ceil(number / 4)
    by_place = [1 / best if place < best else -1 / best if place >= number - best else 0.0 for place in range(number)]
    ordered = sorted(losses)
    found = []
    for loss in losses:
        first, count = ordered.index(loss), ordered.count(loss)
        found.append(sum(by_place[first : first + count]) / count)
    return found


@dataclass(frozen=True)
class AsngOptions:
    """``samples``: subnets drawn for a step; ``iterations``: number of steps.

    Raises:
        InputError: a number is out of range.
    """

    samples: int = 2
    iterations: int = 500
    seed: int = 1

    def __post_init__(self) -> None:
        at_least(2, samples=self.samples)
        at_least(0, iterations=self.iterations, seed=self.seed)

    @property
    def most_subnets(self) -> int:
        """Return the number of judged subnets if none is drawn twice, including the answer."""
        return self.samples * self.iterations + 1


def asng_search(
    candidates: Candidates, options: AsngOptions, on_generation: Callable[[int, float], object] = lambda n, loss: 0
) -> Subnet:
    """Return the best judged subnet; the distribution's answer, its most probable subnet, is judged, too.

    Draws that miss a constraint are drawn again, or moved towards the cheapest subnet, so that only subnets within the
    budgets are judged. A repeated draw costs nothing, and the longer the search, the fewer draws are new. The search is
    deterministic in the same sense as :func:`~mos_fairseq.nas.evolution.evolve`.
    """
    genes, rng = candidates.genes, random.Random(f"asng/{options.seed}")
    distribution = CategoricalASNG(genes.sizes)
    for iteration in range(options.iterations):
        vectors = [candidates.draw_one(distribution.draw, rng) for _ in range(options.samples)]
        losses = candidates.losses([genes.decode(vector) for vector in vectors])
        distribution.update(vectors, losses)
        on_generation(iteration, min(candidates.known[key] for key in candidates.seen))
    candidates.losses([genes.decode(within_budgets(candidates, distribution.answer()))])
    return min(candidates.seen.values(), key=lambda subnet: candidates.known[subnet.key])


def within_budgets(candidates: Candidates, vector: Vector) -> Vector:
    """Return ``vector``, or if it misses a constraint, the vector with some entries set to the cheapest subnet's. Their
    order depends on ``vector`` only."""
    cheapest, rng = candidates.check_reachable(), random.Random(f"answer/{vector}")
    while not candidates.feasible(candidates.genes.decode(vector)):
        vector = candidates.genes.towards(vector, cheapest, rng)
    return vector
