"""Time variants in turn, so that a machine's drift affects all of them alike, and summarise the times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Section:
    """Variants compared in one interleaved run.

    Args:
        title: the work that each variant did.
        seconds: times of each variant, one value per round.
        base: name of the variant that the others are divided by.
        tokens: target tokens of one run, for tokens per second; None if that rate has no meaning.
        targets: largest acceptable ratio to the base, by variant.
        skipped: reason why a variant is missing, by variant.
    """

    title: str
    seconds: dict[str, list[float]]
    base: str
    tokens: int | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per variant: median and quartiles in ms, paired ratio to the base with its 95 % interval."""
        return [self._row(name) for name in self.seconds]

    def _row(self, name: str) -> dict[str, Any]:
        times = 1000 * np.array(self.seconds[name])
        quartiles = np.quantile(times, [0.25, 0.5, 0.75])
        row = {"variant": name, "median_ms": quartiles[1], "quartiles_ms": [quartiles[0], quartiles[2]]}
        if self.tokens is not None:
            row["tokens_per_second"] = 1000 * self.tokens / quartiles[1]
        if name != self.base:
            row |= ratio(self.seconds[name], self.seconds[self.base])
        if name in self.targets:
            row["target"] = self.targets[name]
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the section with its single times, as plain values."""
        seconds = {name: [round(value, 6) for value in values] for name, values in self.seconds.items()}
        rows = [row | {"quartiles_ms": [round(v, 4) for v in row["quartiles_ms"]]} for row in self.rows()]
        return {
            "title": self.title,
            "base": self.base,
            "rows": rows,
            "seconds": seconds,
            "skipped": dict(self.skipped),
        }


def ratio(times: list[float], base: list[float]) -> dict[str, Any]:
    """Return the median over rounds of a variant's time by the base's in the same round, and its bootstrapped 95 %
    interval."""
    ratios = np.array(times) / np.array(base)
    draws = np.random.default_rng(1).choice(ratios, (1000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return {"ratio": float(np.median(ratios)), "interval": [round(float(low), 4), round(float(high), 4)]}


def _by_clock(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _by_events(call: Callable[[], object]) -> float:
    """Return the seconds from the first work given to an idle GPU until the last is done."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


_stopwatch: ContextVar[Callable[[Callable[[], object]], float]] = ContextVar("stopwatch", default=_by_clock)


@contextmanager
def timed_on(device: str) -> Iterator[None]:
    """Within this context, :func:`in_turn` times work on the device with torch's name ``device``."""
    token = _stopwatch.set(_by_events if device.startswith("cuda") else _by_clock)
    try:
        yield
    finally:
        _stopwatch.reset(token)


def in_turn(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    on_round: Callable[[], object] = lambda: None,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Return the seconds of each variant, measured ``rounds`` times in turn; each round starts with another variant.

    The ``warmup`` rounds before do not count. Times are of the wall clock, or of a GPU (:func:`timed_on`). A pause of
    ``pause`` seconds before each run lets the idle threads of another variant fall asleep.

    Raises:
        RuntimeError: the clock does not move.
    """
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(warmup + rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(pause)
            taken = _stopwatch.get()(variants[name])
            if index >= warmup:
                seconds[name].append(taken)
        on_round()
    for name, values in seconds.items():
        if not statistics.fmean(values) > 0:
            raise RuntimeError(f"{name} took {statistics.fmean(values)} s on average: the clock is too coarse")
    return seconds
