"""Latency predictors: a regression from a subnet's features to milliseconds, chosen by cross-validation.

Families: ``ridge``, linear in physical terms; ``boosting``, gradient-boosted trees (LightGBM, arXiv 1706.09516's kin)
on the logarithm; ``both``, trees that correct the ridge. All minimise relative errors, since a budget is met or missed
by per cent. Saved as JSON, which runs no code when loaded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from scipy.stats import kendalltau
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from mos_fairseq.errors import InputError
from mos_fairseq.nas.features import averages, per_layer, physical_terms
from mos_fairseq.search_space import SearchSpace, Subnet

FAMILIES = ("ridge", "boosting", "both")
FORMAT = "mos-latency-predictor 1"
MIN_SUBNETS = 20
_TREES = {
    "objective": "l1",
    "learning_rate": 0.05,
    "min_data_in_leaf": 10,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


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


@dataclass(frozen=True)
class Ridge:
    """y = intercept + (x - mean) / scale · weights."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: float
    lowest: float

    @classmethod
    def fit(cls, features: Features, latency_ms: np.ndarray) -> Ridge:
        """Least squares of relative errors; the penalty is chosen by leave-one-out."""
        x = features.terms
        mean, scale = x.mean(0), x.std(0)
        scale[scale == 0] = 1.0
        model = RidgeCV(np.logspace(-4, 3, 15)).fit((x - mean) / scale, latency_ms, sample_weight=latency_ms**-2.0)
        # a line may cross zero outside the data, latency does not
        return cls(mean, scale, model.coef_, float(model.intercept_), 0.1 * float(latency_ms.min()))

    def predict(self, features: Features) -> np.ndarray:
        """Milliseconds [n]."""
        y = self.intercept + ((features.terms - self.mean) / self.scale) @ self.weights
        return np.maximum(y, self.lowest)

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers."""
        arrays = {"mean": self.mean, "scale": self.scale, "weights": self.weights}
        rest = {"intercept": self.intercept, "lowest": self.lowest}
        return {name: array.tolist() for name, array in arrays.items()} | rest

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ridge:
        """The inverse of :meth:`to_dict`."""
        arrays = [np.array(data[name], dtype=float) for name in ("mean", "scale", "weights")]
        return cls(*arrays, float(data["intercept"]), float(data["lowest"]))


def _fit_trees(features: Features, target: np.ndarray, seed: int) -> lightgbm.Booster:
    data = lightgbm.Dataset(features.everything, target, params={"verbosity": -1})
    leaves = 15 if len(target) >= 500 else 7
    return lightgbm.train(_TREES | {"num_leaves": leaves, "seed": seed}, data, num_boost_round=300)


@dataclass(frozen=True)
class LatencyPredictor:
    """Predicts the latency of subnets in milliseconds.

    ``space``: the search space it was fitted on, None where it was fitted on HAT's averages; ``scores``: held-out
    ``mape``, … of each family.
    """

    family: str
    space: SearchSpace | None
    scores: dict[str, dict[str, float]]
    ridge: Ridge | None
    trees: lightgbm.Booster | None

    def predict(self, subnets: Sequence[Subnet]) -> np.ndarray:
        """Milliseconds of each subnet [n].

        Raises:
            InputError: a subnet is not in the predictor's search space, or it knows averages only.
        """
        if self.space is None:
            raise InputError("this predictor was fitted on averaged features of another program, not on a search space")
        for subnet in subnets:
            self.space.check(subnet)
        return self.predict_features(Features.of_subnets(subnets, self.space))

    def predict_features(self, features: Features) -> np.ndarray:
        """Milliseconds [n]."""
        base = self.ridge.predict(features) if self.ridge is not None else 1.0
        return base * np.exp(self.trees.predict(features.everything)) if self.trees is not None else base

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, atomically. Raises InputError if the file cannot be written."""
        data = {
            "format": FORMAT,
            "family": self.family,
            "search_space": self.space.to_dict() if self.space else None,
            "scores": self.scores,
            "ridge": self.ridge.to_dict() if self.ridge else None,
            "trees": self.trees.model_to_string() if self.trees else None,
        }
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            try:
                temporary.write_text(json.dumps(data, allow_nan=False), encoding="utf-8")
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyPredictor:
        """Read what :meth:`save` wrote. Raises InputError if the file is no predictor."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
        except (ValueError, RecursionError):
            raise InputError(f"{path}: not a latency predictor (no valid JSON)") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"{path}: not a latency predictor (format {FORMAT!r})")
        try:
            space, ridge, trees = data["search_space"], data["ridge"], data["trees"]
            return cls(
                data["family"],
                SearchSpace.from_dict(space) if space else None,
                data["scores"],
                Ridge.from_dict(ridge) if ridge else None,
                lightgbm.Booster(model_str=trees) if trees else None,
            )
        except (KeyError, TypeError, ValueError, lightgbm.basic.LightGBMError) as error:
            raise InputError(f"{path}: not a latency predictor ({' '.join(str(error).split())[:100]})") from None


def fit_family(family: str, features: Features, latency_ms: np.ndarray, seed: int) -> LatencyPredictor:
    """One family on all the data."""
    ridge = Ridge.fit(features, latency_ms) if family != "boosting" else None
    trees = None
    if family != "ridge":
        base = ridge.predict(features) if ridge is not None else 1.0
        trees = _fit_trees(features, np.log(latency_ms / base), seed)
    return LatencyPredictor(family, None, {}, ridge, trees)


def fit_predictor(
    features: Features, latency_ms: Sequence[float], space: SearchSpace | None, folds: int = 10, seed: int = 1
) -> tuple[LatencyPredictor, np.ndarray]:
    """Fit the family with the lowest cross-validated mean absolute percentage error.

    Returns:
        the predictor, fitted on all the data, and its held-out predictions [n] from the cross-validation.

    Raises:
        InputError: too few subnets, a latency that is no duration, or fewer than two folds.
    """
    y = np.array(latency_ms, dtype=float)
    if len(y) < MIN_SUBNETS:
        raise InputError(f"{len(y)} measured subnets: at least {MIN_SUBNETS} are needed to fit a predictor")
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise InputError("latencies must be positive and finite")
    if not 2 <= folds <= len(y):
        raise InputError(f"folds is {folds}: allowed are whole numbers from 2 to the number of subnets, {len(y)}")
    held_out = {family: np.zeros(len(y)) for family in FAMILIES}
    for train, test in KFold(folds, shuffle=True, random_state=seed).split(y):
        for family in FAMILIES:
            model = fit_family(family, features.take(train), y[train], seed)
            held_out[family][test] = model.predict_features(features.take(test))
    scores = {family: score(y, predicted) for family, predicted in held_out.items()}
    best = min(FAMILIES, key=lambda family: scores[family]["mape"])
    model = fit_family(best, features, y, seed)
    return LatencyPredictor(best, space, scores, model.ridge, model.trees), held_out[best]


def score(measured: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """``mape`` in per cent, ``rmse`` in ms, ``kendall_tau`` and ``r2`` of predictions."""
    y, p = np.array(measured, dtype=float), np.array(predicted, dtype=float)
    tau = float(kendalltau(y, p).statistic) if len(y) > 1 else math.nan
    spread = float(((y - y.mean()) ** 2).sum())
    return {
        "mape": 100 * float(np.abs(p / y - 1).mean()),
        "rmse": float(((p - y) ** 2).mean() ** 0.5),
        "kendall_tau": tau if math.isfinite(tau) else 0.0,
        "r2": 1 - float(((p - y) ** 2).sum()) / spread if spread else 0.0,
    }
