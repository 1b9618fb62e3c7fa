"""Predict the quality of subnets from judged ones: the surrogate of LINAS.

Families: ``ridge``, linear in the choices; ``svr``, support vector regression with a Gaussian kernel, in which choices
act together; ``boosting``, gradient-boosted trees (LightGBM). ``auto`` takes the one with the lowest cross-validated
error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import kendalltau
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.svm import SVR

_DIGITS = 6  # precision of judged losses; smaller differences must not decide what is judged next
_FOLDS = 5
# In a space of 4e14 subnets, an SVR on 1,440 judged ones after 30, 60 and 105 had a Kendall's tau of 0.68, 0.75 and
# 0.79 without totals, 0.73, 0.78 and 0.82 with them, and 0.80, 0.85 and 0.87 with this weight.
_WEIGHT_OF_TOTALS = 4.0
_TREES = {
    "objective": "l2",
    "learning_rate": 0.05,
    "min_data_in_leaf": 5,
    "num_leaves": 7,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}

Predict = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray], Predict]


def _ridge(x: np.ndarray, y: np.ndarray) -> Predict:
    return RidgeCV(np.logspace(-2, 3, 11)).fit(x, y).predict  # leave-one-out chooses the penalty


def _svr(penalty: float, width: float, x: np.ndarray, y: np.ndarray) -> Predict:
    return SVR(C=penalty, gamma=width / x.shape[1], epsilon=0.02).fit(x, y).predict


def _boosting(x: np.ndarray, y: np.ndarray) -> Predict:
    import lightgbm  # needed here only, and not available everywhere

    booster = lightgbm.train(_TREES, lightgbm.Dataset(x, y, params={"verbosity": -1}), num_boost_round=150)
    return lambda rows: np.asarray(booster.predict(rows, num_threads=1))


_FAMILIES: dict[str, list[Fit]] = {
    "ridge": [_ridge],
    "svr": [partial(_svr, penalty, width) for penalty in (1.0, 10.0, 100.0) for width in (0.03, 0.1, 0.3)],
    "boosting": [_boosting],
}


class QualityPredictor:
    """Predict losses of subnets from their features.

    Args:
        features: [n, f], of at least 2 subnets.
        losses: [n], in any unit.
        totals: number of the last features that are totals over layers. They are the most informative: few subnets
            suffice to show the effect of a choice in any layer, but not in one layer.
        family: ``auto``, ``ridge``, ``svr`` or ``boosting``.

    Attributes:
        family: the chosen family; ``mean``, of all fitted losses, if the data are uninformative.
    """

    def __init__(
        self, features: np.ndarray, losses: np.ndarray, family: str = "auto", seed: int = 1, totals: int = 0
    ) -> None:
        y = np.asarray(losses, dtype=float)
        # standardised: penalties, margins and widths must depend neither on units nor on how often a choice was drawn
        self._x_mean, self._x_scale = _standard(features)
        self._x_scale[features.shape[1] - totals :] /= _WEIGHT_OF_TOTALS
        self._mean, self._scale = _standard(y)
        x, y = (features - self._x_mean) / self._x_scale, (y - self._mean) / self._scale
        if len(y) < 2 * _FOLDS or not x.shape[1] or not np.ptp(y):  # uninformative data
            self.family, self._predict = "mean", lambda rows: np.zeros(len(rows))
            return
        families = _FAMILIES if family == "auto" else {family: _FAMILIES[family]}
        variants = [(name, fit) for name, fits in families.items() for fit in fits]
        errors = [_error(fit, x, y, seed) for _, fit in variants] if len(variants) > 1 else [0.0]
        self.family, fit = variants[int(np.argmin(errors))]
        self._predict = fit(x, y)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return losses [n] of features [n, f]."""
        found = self._predict((features - self._x_mean) / self._x_scale) if len(features) else np.zeros(0)
        return np.round(self._mean + self._scale * found, _DIGITS)


def _standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column; 1 for a constant column."""
    scale = values.std(0)
    return values.mean(0), np.where(scale > 0, scale, 1.0)


def _error(fit: Fit, x: np.ndarray, y: np.ndarray, seed: int) -> float:
    """Return the cross-validated mean absolute error."""
    found = []
    for train, test in KFold(_FOLDS, shuffle=True, random_state=seed).split(y):
        found += np.abs(fit(x[train], y[train])(x[test]) - y[test]).tolist()
    return round(float(np.mean(found)), _DIGITS)


def agreement(judged: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return ``mae`` in the unit of the losses, and ``kendall_tau``; None if undefined."""
    tau = float("nan")
    if len(judged) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tau = float(kendalltau(judged, predicted).statistic)
    return {"mae": float(np.abs(judged - predicted).mean()), "kendall_tau": None if np.isnan(tau) else tau}
