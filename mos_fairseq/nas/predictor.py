"""Latency predictors: a regression from a subnet's features to milliseconds, chosen by cross-validation.

Families: ``ridge``, linear in physical terms; ``boosting``, gradient-boosted trees (fitted by LightGBM) on the
logarithm; ``both``, trees that correct the ridge. All minimise relative errors, since a budget is met or missed by per
cent. Saved as JSON, plain numbers that are checked when loaded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from mos_fairseq.errors import InputError
from mos_fairseq.files import write_atomically
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
        weights = latency_ms**-2.0
        # of mean 1: the penalties must not depend on the unit of time
        model = RidgeCV(np.logspace(-4, 3, 15)).fit(
            (x - mean) / scale, latency_ms, sample_weight=weights / weights.mean()
        )
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
        arrays = [_numbers(data[name]) for name in ("mean", "scale", "weights")]
        if len({array.shape for array in arrays}) != 1:
            raise ValueError("the ridge's lists differ in length")
        return cls(*arrays, float(_numbers([data["intercept"]])[0]), float(_numbers([data["lowest"]])[0]))


def _numbers(values: Any) -> np.ndarray:
    result = np.array(values, dtype=float)
    if result.ndim != 1 or not np.isfinite(result).all():
        raise ValueError("a list of finite numbers is expected")
    return result


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("a list of subnets' keys is expected")
    return tuple(values)


@dataclass(frozen=True)
class Trees:
    """Gradient-boosted trees, their nodes in one table: row i asks whether feature[i] <= threshold[i] and goes to
    left[i] or right[i], which come later; a leaf has feature -1 and its value as the threshold."""

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def fit(cls, features: Features, target: np.ndarray, seed: int) -> Trees:
        """300 trees on all features, absolute errors."""
        import lightgbm  # only needed here, and not everywhere to be had

        middle = float(np.median(target))  # LightGBM computes in single precision
        data = lightgbm.Dataset(features.everything, target - middle, params={"verbosity": -1})
        leaves = 15 if len(target) >= 500 else 7
        booster = lightgbm.train(_TREES | {"num_leaves": leaves, "seed": seed}, data, num_boost_round=300)
        rows: list[list[float]] = []
        trees = [*(tree["tree_structure"] for tree in booster.dump_model()["tree_info"]), {"leaf_value": middle}]
        roots = [_add_node(rows, tree) for tree in trees]
        table = np.array(rows).T
        feature, left, right = (table[i].astype(int) for i in (0, 2, 3))
        return cls(np.array(roots), feature, table[1], left, right)

    def predict(self, features: Features) -> np.ndarray:
        """Sum over the trees [n]."""
        x = features.everything
        node = np.broadcast_to(self.roots, (len(x), len(self.roots))).copy()
        rows = np.arange(len(x))[:, None]
        while (inner := self.feature[node] >= 0).any():
            below = x[rows, np.maximum(self.feature[node], 0)] <= self.threshold[node]
            node = np.where(inner, np.where(below, self.left[node], self.right[node]), node)
        return self.threshold[node].sum(1)

    def to_dict(self) -> dict[str, list[float]]:
        """As plain lists."""
        return {name: getattr(self, name).tolist() for name in ("roots", "feature", "threshold", "left", "right")}

    @classmethod
    def from_dict(cls, data: dict[str, Any], num_features: int) -> Trees:
        """The inverse of :meth:`to_dict`. ValueError unless every walk down the trees ends at a leaf."""
        columns = {name: _numbers(data[name]) for name in ("roots", "feature", "threshold", "left", "right")}
        size = len(columns["feature"])
        integers = {name: columns[name].astype(int) for name in ("roots", "feature", "left", "right")}
        whole = all((integers[name] == columns[name]).all() for name in integers)
        if not whole or any(len(columns[name]) != size for name in ("threshold", "left", "right")):
            raise ValueError("the trees' lists differ in length or are no whole numbers")
        inner = integers["feature"] >= 0
        rows = np.arange(size)
        for side in ("left", "right"):
            if not ((integers[side] > rows) & (integers[side] < size))[inner].all():
                raise ValueError("a tree's child is not a later row")
        roots = integers["roots"]
        if (integers["feature"] >= num_features).any() or not ((roots >= 0) & (roots < size)).all():
            raise ValueError("a tree's feature or root is out of range")
        return cls(roots, integers["feature"], columns["threshold"], integers["left"], integers["right"])


def _add_node(rows: list[list[float]], node: dict[str, Any]) -> int:
    """Append a node of LightGBM's and all below it; returns its row."""
    number = len(rows)
    if "leaf_value" in node:
        rows.append([-1, node["leaf_value"], -1, -1])
        return number
    assert node["decision_type"] == "<="
    rows.append([node["split_feature"], node["threshold"], -1, -1])
    rows[number][2] = _add_node(rows, node["left_child"])
    rows[number][3] = _add_node(rows, node["right_child"])
    return number


@dataclass(frozen=True)
class LatencyPredictor:
    """Predicts the latency of subnets in milliseconds.

    ``space``: the search space it was fitted on, None where it was fitted on HAT's averages; ``scores``: held-out
    ``mape``, … of each family; ``measured``: options and machine of the measurements; ``training``, ``held_out``: keys
    of the measured rows that it was fitted to, and that only judged it (both empty in files of earlier versions).
    """

    family: str
    space: SearchSpace | None
    scores: dict[str, dict[str, float]]
    ridge: Ridge | None
    trees: Trees | None
    measured: dict[str, Any] = field(default_factory=dict)
    training: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()

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
        return base * np.exp(self.trees.predict(features)) if self.trees is not None else base

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, atomically. Raises InputError if the file cannot be written."""
        data = {
            "format": FORMAT,
            "family": self.family,
            "search_space": self.space.to_dict() if self.space else None,
            "scores": self.scores,
            "ridge": self.ridge.to_dict() if self.ridge else None,
            "trees": self.trees.to_dict() if self.trees else None,
            "measured": self.measured,
            "training": self.training,
            "held_out": self.held_out,
        }
        write_atomically(path, json.dumps(data, allow_nan=False) + "\n")

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
            return cls._from_dict(data)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{path}: not a latency predictor ({' '.join(str(error).split())[:100]})") from None

    @classmethod
    def _from_dict(cls, data: dict[str, Any]) -> LatencyPredictor:
        space = SearchSpace.from_dict(data["search_space"]) if data["search_space"] else None
        sample = Features.of_subnets([space.largest()], space) if space else Features.of_averages([[1.0] * 10])
        ridge = Ridge.from_dict(data["ridge"]) if data["ridge"] else None
        trees = Trees.from_dict(data["trees"], sample.everything.shape[1]) if data["trees"] else None
        if ridge is not None and len(ridge.weights) != sample.terms.shape[1]:
            raise ValueError("the ridge does not fit the features")
        if ridge is None and trees is None or not isinstance(data["measured"], dict):
            raise ValueError("it holds no model")
        keys = [_texts(data.get(part, [])) for part in ("training", "held_out")]
        return cls(data["family"], space, data["scores"], ridge, trees, data["measured"], *keys)


def fit_family(family: str, features: Features, latency_ms: np.ndarray, seed: int) -> LatencyPredictor:
    """One family on all the data."""
    ridge = Ridge.fit(features, latency_ms) if family != "boosting" else None
    trees = None
    if family != "ridge":
        base = ridge.predict(features) if ridge is not None else 1.0
        trees = Trees.fit(features, np.log(latency_ms / base), seed)
    return LatencyPredictor(family, None, {}, ridge, trees)


def fit_predictor(
    features: Features,
    latency_ms: Sequence[float],
    space: SearchSpace | None,
    folds: int = 10,
    seed: int = 1,
    on_fold: Callable[[], object] = lambda: None,
) -> tuple[LatencyPredictor, np.ndarray]:
    """Fit the family with the lowest cross-validated mean absolute percentage error.

    Args:
        on_fold: called after each fold.

    Returns:
        the predictor, fitted on all the data, and its held-out predictions [n] from the cross-validation.

    Raises:
        InputError: too few subnets, a latency that is no duration, or fewer than two folds.
    """
    y = np.array(latency_ms, dtype=float)
    if len(y) < MIN_SUBNETS:
        raise InputError(f"{len(y)} subnets to fit a predictor to: at least {MIN_SUBNETS} are needed")
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise InputError("latencies must be positive and finite")
    if not 2 <= folds <= len(y):
        raise InputError(f"folds is {folds}: allowed are whole numbers from 2 to the number of subnets, {len(y)}")
    held_out = {family: np.zeros(len(y)) for family in FAMILIES}
    for train, test in KFold(folds, shuffle=True, random_state=seed).split(y):
        for family in FAMILIES:
            model = fit_family(family, features.take(train), y[train], seed)
            held_out[family][test] = model.predict_features(features.take(test))
        on_fold()
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
