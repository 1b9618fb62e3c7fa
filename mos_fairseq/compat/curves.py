"""Names of curves in TensorBoard."""

from __future__ import annotations

import functools
from typing import Any

from fairseq.logging.progress_bar import TensorboardProgressBarWrapper

NAMES: dict[str, str] = {}
"""Key of a logged value -> name of its curve; without an entry, they are the same."""


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
