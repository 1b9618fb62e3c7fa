"""What a latency predictor sees of a subnet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mos_fairseq.search_space import ENCODING_FEATURES, LAYER_KEYS, SearchSpace, Subnet, depth_key

_PER_LAYER = tuple(name for name in ENCODING_FEATURES if name in LAYER_KEYS)


def averages(subnet: Subnet) -> list[float]:
    """HAT's ten numbers (arXiv 2005.14187), in the order of its published files and of the arch encoding: widths,
    depths, and each per-layer value's mean; spans in encoder layers, as many as there are."""
    result = []
    for name in ENCODING_FEATURES:
        value = _amounts(subnet, name)
        result.append(sum(value) / len(value) if isinstance(value, tuple) else float(value))
    return result


def physical_terms(ten: Sequence[float]) -> list[float]:
    """Terms that latency is nearly linear in, from the ten averages: layers, their matrix products by kind, heads.

    Depth times a mean is a sum over layers, so these hardly need the layers one by one.
    """
    d_enc, l_enc, ffn_enc, heads_enc, d_dec, l_dec, ffn_dec, heads_self, heads_cross, span = ten
    encoder = [l_enc, l_enc * d_enc, l_enc * heads_enc, l_enc * ffn_enc, l_enc * ffn_enc * d_enc]
    decoder = [l_dec, l_dec * d_dec, l_dec * ffn_dec, l_dec * ffn_dec * d_dec, l_dec * heads_self, l_dec * heads_cross]
    cross = [l_dec * span, l_dec * span * d_enc, l_dec * span * heads_cross]
    widths = [l_enc * heads_enc * d_enc, l_dec * heads_self * d_dec, l_dec * heads_cross * d_dec]
    return [*encoder, *decoder, *cross, *widths, d_enc, d_dec]  # the last is the output projection's


def per_layer(subnet: Subnet, space: SearchSpace) -> list[float]:
    """Every layer's values, 0 where the layer is absent."""
    result: list[float] = []
    for name in _PER_LAYER:
        values = _amounts(subnet, name)
        depth = space.max(depth_key(name))
        result += [*map(float, values), *[0.0] * (depth - len(values))]
    return result


def _amounts(subnet: Subnet, name: str) -> int | tuple[int, ...]:
    return subnet.cross_spans if name == "decoder_arbitrary_ende_attn" else getattr(subnet, name)


@dataclass(frozen=True)
class Features:
    """Features of n subnets: physical terms [n, p], which ridge takes, and all that trees take [n, q]."""

    terms: np.ndarray
    everything: np.ndarray

    @classmethod
    def of_subnets(cls, subnets: Sequence[Subnet], space: SearchSpace) -> Features:
        """From subnets, layer by layer."""
        ten = [averages(subnet) for subnet in subnets]
        layers = [per_layer(subnet, space) for subnet in subnets]
        terms = [physical_terms(row) for row in ten]
        rows = [a + b + c for a, b, c in zip(ten, terms, layers, strict=True)]
        return cls(np.array(terms, dtype=float), np.array(rows, dtype=float))

    @classmethod
    def of_averages(cls, ten: Sequence[Sequence[float]]) -> Features:
        """From HAT's ten averages, all that its published files hold."""
        terms = [physical_terms(row) for row in ten]
        rows = [[*a, *b] for a, b in zip(ten, terms, strict=True)]
        return cls(np.array(terms, dtype=float), np.array(rows, dtype=float))

    def take(self, rows: np.ndarray) -> Features:
        """Those of some subnets."""
        return Features(self.terms[rows], self.everything[rows])

    def __len__(self) -> int:
        return len(self.terms)
