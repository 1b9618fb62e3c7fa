"""Latency predictors: a regression from a subnet's features to milliseconds, chosen by cross-validation.

Families: ``ridge``, linear in physical terms; ``boosting``, gradient-boosted trees (fitted by LightGBM) on the
logarithm; ``both``, trees that correct the ridge. All minimise relative errors, since a budget is met or missed by per
cent. A predictor is saved as JSON with plain numbers, which are checked when loaded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import kendalltau
from sklearn.model_selection import KFold

from mos_fairseq.errors import InputError
from mos_fairseq.files import read_text, write_atomically
from mos_fairseq.latency.features import HAT_FEATURES, Features
from mos_fairseq.latency.measured import PARTS, REFERENCE
from mos_fairseq.latency.regression import Ridge, Trees
from mos_fairseq.search_space import SearchSpace, Subnet

MODELS = ("ridge", "boosting", "both")
FORMAT = "mos-latency-predictor 1"
MIN_SUBNETS = 20
# At a tau of 0.8, one pair of subnets in ten is in the wrong order. Published measurements of a Xeon (HAT) leave an
# error of 5 %; it exceeds the differences that a search finds between neighbours.
LEAST_TAU = 0.8
MOST_MAPE = 5.0


@dataclass(frozen=True)
class LatencyPredictor:
    """Predict the latency of subnets in milliseconds.

    ``space``: the search space of the measurements, None for HAT's averages; ``scores``: held-out ``mape``, … of each
    family; ``measured``: options, machine, kernels and the reference's time of the measurements (files of earlier
    versions lack the last one); ``training``, ``held_out``: keys of the rows that the predictor was fitted to, and of
    those that only judged it (both empty in files of earlier versions); ``parts``: predictors of ``encoder_ms`` and
    ``decoder_ms``, if ``fit`` made them.
    """

    family: str
    space: SearchSpace | None
    scores: dict[str, dict[str, float]]
    ridge: Ridge | None
    trees: Trees | None
    measured: dict[str, Any] = field(default_factory=dict)
    training: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    parts: dict[str, LatencyPredictor] = field(default_factory=dict)

    def predict(self, subnets: Sequence[Subnet]) -> np.ndarray:
        """Return the milliseconds of each subnet [n].

        Raises:
            InputError: a subnet is not in the predictor's search space, or the predictor was fitted on averages.
        """
        return self.predict_features(self._features(subnets))

    def predict_parts(self, subnets: Sequence[Subnet]) -> dict[str, np.ndarray]:
        """Return the milliseconds [n] of each part by name; empty if they were not fitted. Raises InputError as
        :meth:`predict` does."""
        if not self.parts:
            return {}
        features = self._features(subnets)
        return {name: part.predict_features(features) for name, part in self.parts.items()}

    def _features(self, subnets: Sequence[Subnet]) -> Features:
        if self.space is None:
            raise InputError("this predictor was fitted on averaged features of another program, not on a search space")
        for subnet in subnets:
            self.space.check(subnet)
        return Features.of_subnets(subnets, self.space)

    def predict_features(self, features: Features) -> np.ndarray:
        """Milliseconds [n]."""
        base = self.ridge.predict(features) if self.ridge is not None else np.ones(len(features))
        return base * np.exp(self.trees.predict(features)) if self.trees is not None else base

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, atomically. Raises InputError if the file cannot be written."""
        data = {
            "format": FORMAT,
            "search_space": self.space.to_dict() if self.space else None,
            **self._models(),
            "measured": self.measured,
            "training": self.training,
            "held_out": self.held_out,
        }
        if self.parts:
            data["parts"] = {name: part._models() for name, part in self.parts.items()}
        write_atomically(path, json.dumps(data, allow_nan=False) + "\n")

    def _models(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "scores": self.scores,
            "ridge": self.ridge.to_dict() if self.ridge else None,
            "trees": self.trees.to_dict() if self.trees else None,
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyPredictor:
        """Read a file of :meth:`save`. Raises InputError if the file holds no predictor."""
        try:
            data = json.loads(read_text(path))
        except InputError:
            raise
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
        if space is None:
            sample = Features.of_averages([[1.0] * len(HAT_FEATURES)])
        else:
            sample = Features.of_subnets([space.largest()], space)
        ridge = Ridge.from_dict(data["ridge"]) if data["ridge"] else None
        trees = Trees.from_dict(data["trees"], sample.everything.shape[1]) if data["trees"] else None
        if ridge is not None and len(ridge.weights) != sample.terms.shape[1]:
            raise ValueError("the ridge does not fit the features")
        if ridge is None and trees is None or not isinstance(data["measured"], dict):
            raise ValueError("it holds no model")
        reference = data["measured"].get(REFERENCE, 1.0)
        if type(reference) not in (int, float) or not 0 < reference < math.inf:
            raise ValueError(f"its {REFERENCE} is {reference!r}")
        training, held_out = (_texts(data.get(part, [])) for part in ("training", "held_out"))
        rest = {"search_space": data["search_space"], "measured": {}}
        parts = {name: cls._from_dict(part | rest) for name, part in data.get("parts", {}).items()}
        if parts and set(parts) != set(PARTS):
            raise ValueError(f"its parts are {', '.join(parts)}")
        return cls(data["family"], space, data["scores"], ridge, trees, data["measured"], training, held_out, parts)


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("a list of subnets' keys is expected")
    return tuple(values)


def fit_family(family: str, features: Features, latency_ms: np.ndarray, seed: int) -> LatencyPredictor:
    """Fit one family on all the data."""
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
        InputError: too few subnets, a latency that is not a duration, or fewer than two folds.
    """
    y = np.array(latency_ms, dtype=float)
    if len(y) < MIN_SUBNETS:
        raise InputError(f"{len(y)} subnets to fit a predictor to: at least {MIN_SUBNETS} are needed")
    if not (np.isfinite(y).all() and (y > 0).all()):
        raise InputError("latencies must be positive and finite")
    if not 2 <= folds <= len(y):
        raise InputError(f"folds is {folds}: allowed are whole numbers from 2 to the number of subnets, {len(y)}")
    held_out = {family: np.zeros(len(y)) for family in MODELS}
    for train, test in KFold(folds, shuffle=True, random_state=seed).split(y):
        for family in MODELS:
            model = fit_family(family, features.take(train), y[train], seed)
            held_out[family][test] = model.predict_features(features.take(test))
        on_fold()
    scores = {family: score(y, predicted) for family, predicted in held_out.items()}
    best = min(MODELS, key=lambda family: scores[family]["mape"])
    model = fit_family(best, features, y, seed)
    return LatencyPredictor(best, space, scores, model.ridge, model.trees), held_out[best]


def score(measured: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Return ``mape`` in per cent, ``rmse`` in ms, ``kendall_tau`` and ``r2`` of predictions."""
    y, p = np.array(measured, dtype=float), np.array(predicted, dtype=float)
    tau = float(kendalltau(y, p).statistic) if len(y) > 1 else math.nan
    spread = float(((y - y.mean()) ** 2).sum())
    return {
        "mape": 100 * float(np.abs(p / y - 1).mean()),
        "rmse": float(((p - y) ** 2).mean() ** 0.5),
        "kendall_tau": tau if math.isfinite(tau) else 0.0,
        "r2": 1 - float(((p - y) ** 2).sum()) / spread if spread else 0.0,
    }


def doubts(scores: Mapping[str, Mapping[str, float]], what: str = "the predictor") -> str | None:
    """Return a warning if scores are too poor to rely on ``what``; None otherwise.

    Args:
        scores: by where they come from, as in "of held-out subnets"; the first poor ones are told.
    """
    for where, found in scores.items():
        signs = []
        if found["kendall_tau"] < LEAST_TAU:
            signs.append(f"Kendall's tau {found['kendall_tau']:.2f} is below {LEAST_TAU}")
        if found["mape"] > MOST_MAPE:
            signs.append(f"its error of {found['mape']:.1f} % is above {MOST_MAPE:g} %")
        if signs:
            return (
                f"{what} is unsure: {where}, {' and '.join(signs)}; measure more subnets, with more --repeats, "
                "on a machine without other work"
            )
    return None
