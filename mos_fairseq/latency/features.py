"""A subnet's features for a latency predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mos_fairseq.search_space import FAMILIES, Family, SearchSpace, Subnet

HAT_FAMILY = FAMILIES["encoder_decoder"]
HAT_FEATURES = tuple(dimension.key for dimension in HAT_FAMILY.encoded if not dimension.optional)
"""The features in HAT's published files (arXiv 2005.14187), in the order of their columns."""


def averages(subnet: Subnet) -> dict[str, float]:
    """Return each dimension's value, or for a per-layer dimension the mean over the present layers, in the order of the
    arch encoding.

    A span counts the outputs that exist."""
    found = {}
    for key, value in subnet.amounts.items():
        found[key] = sum(value) / len(value) if isinstance(value, tuple) else float(value)
    return found


def physical_terms(mean: Mapping[str, float], family: Family) -> list[float]:
    """Return terms in which latency is nearly linear, from the averages: layers, matrix products by kind, heads.

    Depth times a mean is a sum over layers, so averages lose little against single layers.
    """
    return list(family.terms(mean).values())


def per_layer(subnet: Subnet, space: SearchSpace) -> list[float]:
    """Return every layer's values, 0 if the layer is absent."""
    result: list[float] = []
    for key, values in subnet.amounts.items():
        if isinstance(values, tuple):
            depth = space.max(space.family.owners[key].depth.key)
            result += [*map(float, values), *[0.0] * (depth - len(values))]
    return result


@dataclass(frozen=True)
class Features:
    """Features of n subnets: physical terms [n, p] for ridge, and all features [n, q] for trees."""

    terms: np.ndarray
    everything: np.ndarray

    @classmethod
    def of_subnets(cls, subnets: Sequence[Subnet], space: SearchSpace) -> Features:
        """Compute the features of subnets, layer by layer."""
        means = [averages(subnet) for subnet in subnets]
        layers = [per_layer(subnet, space) for subnet in subnets]
        terms = [physical_terms(mean, space.family) for mean in means]
        rows = [[*mean.values(), *row, *layer] for mean, row, layer in zip(means, terms, layers, strict=True)]
        return cls(np.array(terms, dtype=float), np.array(rows, dtype=float))

    @classmethod
    def of_averages(cls, rows: Sequence[Sequence[float]]) -> Features:
        """Compute the features from rows of ``HAT_FEATURES``, the content of HAT's published files."""
        terms = [physical_terms(dict(zip(HAT_FEATURES, row, strict=True)), HAT_FAMILY) for row in rows]
        everything = [[*row, *found] for row, found in zip(rows, terms, strict=True)]
        return cls(np.array(terms, dtype=float), np.array(everything, dtype=float))

    def take(self, rows: np.ndarray) -> Features:
        """Return the features of some subnets."""
        return Features(self.terms[rows], self.everything[rows])

    def __len__(self) -> int:
        return len(self.terms)
