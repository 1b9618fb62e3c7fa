"""The two regressions of latency predictors: ridge, and gradient-boosted trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV

from mos_fairseq.latency.features import Features

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
class Ridge:
    """y = intercept + (x - mean) / scale · weights."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: float
    lowest: float

    @classmethod
    def fit(cls, features: Features, latency_ms: np.ndarray) -> Ridge:
        """Fit by least squares of relative errors; leave-one-out chooses the penalty."""
        x = features.terms
        mean, scale = x.mean(0), x.std(0)
        scale[scale == 0] = 1.0
        weights = latency_ms**-2.0
        # scaled to mean 1: the penalties must not depend on the unit of time
        model = RidgeCV(np.logspace(-4, 3, 15)).fit(
            (x - mean) / scale, latency_ms, sample_weight=weights / weights.mean()
        )
        # a linear function may cross zero outside the data, but latency cannot
        return cls(mean, scale, model.coef_, float(model.intercept_), 0.1 * float(latency_ms.min()))

    def predict(self, features: Features) -> np.ndarray:
        """Milliseconds [n]."""
        y = self.intercept + ((features.terms - self.mean) / self.scale) @ self.weights
        return np.maximum(y, self.lowest)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        arrays = {"mean": self.mean, "scale": self.scale, "weights": self.weights}
        rest = {"intercept": self.intercept, "lowest": self.lowest}
        return {name: array.tolist() for name, array in arrays.items()} | rest

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ridge:
        """Rebuild from :meth:`to_dict`."""
        arrays = [_numbers(data[name]) for name in ("mean", "scale", "weights")]
        if len({array.shape for array in arrays}) != 1:
            raise ValueError("the ridge's lists differ in length")
        mean, scale, weights = arrays
        return cls(mean, scale, weights, float(_numbers([data["intercept"]])[0]), float(_numbers([data["lowest"]])[0]))


def _numbers(values: Any) -> np.ndarray:
    result = np.array(values, dtype=float)
    if result.ndim != 1 or not np.isfinite(result).all():
        raise ValueError("a list of finite numbers is expected")
    return result


@dataclass(frozen=True)
class Trees:
    """Gradient-boosted trees, with all nodes in one table. Row i compares feature[i] <= threshold[i] and goes to
    left[i] or right[i], which are later rows. A leaf has feature -1 and its value as the threshold."""

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @classmethod
    def fit(cls, features: Features, target: np.ndarray, seed: int) -> Trees:
        """Fit 300 trees on all features, with absolute errors."""
        import lightgbm  # needed here only, and not available everywhere

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
        """Return the sum over the trees [n]."""
        x = features.everything
        node = np.broadcast_to(self.roots, (len(x), len(self.roots))).copy()
        rows = np.arange(len(x))[:, None]
        while (inner := self.feature[node] >= 0).any():
            below = x[rows, np.maximum(self.feature[node], 0)] <= self.threshold[node]
            node = np.where(inner, np.where(below, self.left[node], self.right[node]), node)
        return self.threshold[node].sum(1)

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain lists."""
        return {name: getattr(self, name).tolist() for name in ("roots", "feature", "threshold", "left", "right")}

    @classmethod
    def from_dict(cls, data: dict[str, Any], num_features: int) -> Trees:
        """Rebuild from :meth:`to_dict`. Raises ValueError unless every path through a tree ends at a leaf."""
        columns = {name: _numbers(data[name]) for name in ("roots", "feature", "threshold", "left", "right")}
        size = len(columns["feature"])
        with np.errstate(invalid="ignore"):  # NaN fails the check for whole numbers
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
    """Append a LightGBM node and all nodes below it; returns its row."""
    number = len(rows)
    if "leaf_value" in node:
        rows.append([-1, node["leaf_value"], -1, -1])
        return number
    if node["decision_type"] != "<=":
        raise ValueError(f"decision_type of a tree's node is {node['decision_type']}: only <= is supported")
    rows.append([node["split_feature"], node["threshold"], -1, -1])
    rows[number][2] = _add_node(rows, node["left_child"])
    rows[number][3] = _add_node(rows, node["right_child"])
    return number
