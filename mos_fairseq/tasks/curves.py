"""Curves of TensorBoard and Weights & Biases: those of a metric are in one group, ``loss/largest`` beside ``loss``."""

from __future__ import annotations

import functools
from typing import Any

from fairseq.logging import progress_bar

_names: dict[str, str] = {}
"""Metric of a subnet, such as loss_largest -> name of its curve."""


def key_of(metric: str, subnet: str) -> str:
    """Return the key under which fairseq logs a subnet's metric, and draw its curve beside the metric's."""
    key = f"{metric}_{subnet}"
    _names[key] = f"{metric}/{subnet}"
    return key


def group_curves() -> None:
    """Give fairseq's writers the names of :func:`key_of`. Log lines keep theirs; a second call changes nothing."""
    for bar, name in (
        (progress_bar.TensorboardProgressBarWrapper, "_log_to_tensorboard"),
        (progress_bar.WandBProgressBarWrapper, "_log_to_wandb"),
    ):
        if not hasattr(getattr(bar, name), "_mos_fairseq_original"):
            setattr(bar, name, _renaming(getattr(bar, name)))


def _renaming(original: Any) -> Any:
    @functools.wraps(original)
    def log(self: Any, stats: dict[str, Any], tag: str | None = None, step: int | None = None) -> None:
        original(self, {_names.get(key, key): value for key, value in stats.items()}, tag, step)

    log._mos_fairseq_original = original  # type: ignore[attr-defined]
    return log
