"""Values and names in fairseq's log and in TensorBoard."""

from __future__ import annotations

import functools
from typing import Any

from fairseq.logging.meters import MetersDict
from fairseq.logging.progress_bar import TensorboardProgressBarWrapper

NAMES: dict[str, str] = {}
"""Key of a logged value -> name of its curve; without an entry, they are the same."""


def leave_out_values_of_nothing() -> None:
    """Leave values without a measurement out of the log. fairseq keeps a metric that was logged once, with None after
    each reset: a subnet that stops to train would have ``loss_NAME=None``."""
    if hasattr(MetersDict.get_smoothed_values, "_mos_fairseq_original"):
        return
    original = MetersDict.get_smoothed_values

    @functools.wraps(original)
    def get_smoothed_values(self: Any) -> Any:
        found = original(self)
        return type(found)((key, value) for key, value in found.items() if value is not None)

    get_smoothed_values._mos_fairseq_original = original  # type: ignore[attr-defined]
    MetersDict.get_smoothed_values = get_smoothed_values


def give_curves_their_names() -> None:
    """Name curves in TensorBoard as in :data:`NAMES`. fairseq names them like its log's values, and TensorBoard makes a
    group of each name; a slash ends a group's name."""
    if hasattr(TensorboardProgressBarWrapper._log_to_tensorboard, "_mos_fairseq_original"):
        return
    original = TensorboardProgressBarWrapper._log_to_tensorboard

    @functools.wraps(original)
    def log(self: Any, stats: dict[str, Any], tag: str | None = None, step: int | None = None) -> None:
        original(self, {NAMES.get(key, key): value for key, value in stats.items()}, tag, step)

    log._mos_fairseq_original = original  # type: ignore[attr-defined]
    TensorboardProgressBarWrapper._log_to_tensorboard = log
