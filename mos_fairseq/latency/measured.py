"""Read files of measured latencies: JSON Lines with a header and then one measurement a line, and HAT's published CSV
files. Reading needs no torch."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from mos_fairseq.errors import InputError
from mos_fairseq.files import read_csv
from mos_fairseq.jsonl import read_jsonl
from mos_fairseq.search_space import HAT_COLUMNS, HAT_LATENCIES, SearchSpace, Subnet

FORMAT = "mos-latency 2"
# format 1 corrected ``latency_ms`` to the header's reference_ms, a single measurement, so it is never read
FORMATS = ("mos-latency 1", FORMAT)
_TRIM = 0.25  # share of visits dropped at either end
# A machine without other work has a steady speed. Where visits to one subnet differed by 5.7 % (standard deviation),
# predictors had an error of 0.7 %; this scatter alone makes the reference's 90th percentile 1.16 times its 10th. With a
# scatter of 10 %, the mean of ten visits is off by 3 %, which is the difference between neighbours on a front.
MOST_DRIFT = 1.25
MOST_SPREAD = 10.0
# parts of a header, and of a predictor, that describe the measurement; files of earlier versions lack the last one
MEASURED = ("options", "machine", "kernels")
REFERENCE = "reference_ms"
"""Beside these, in what describes a measurement: the reference's median time, which latencies are corrected to."""
PARTS = ("encoder_ms", "decoder_ms")
"""Parts of a latency, if a workload times them separately."""


@dataclass(frozen=True)
class Latencies:
    """Measured subnets of a space. A latency is the mean of the middle half of the subnet's measurements, each
    corrected to the median of the reference.

    A shared machine causes outliers. Halves of 20 visits to 205 subnets agreed to 1.29 % (Kendall's tau 0.909) by this
    mean, and to 1.46 % (0.898) by the mean of all visits. Weights by the scatter of a visit's iterations were worse,
    because that scatter differs from the scatter of visits.

    ``repeats_std``: standard deviation of single measurements of the same subnet, in per cent of their mean, as root
    mean square over the subnets; None if no subnet was measured twice. ``reference_ms``: 10th percentile, median and
    90th percentile of the reference's time over all measurements of the file. ``measured``: options, machine, kernels
    and ``REFERENCE``. ``parts_ms``: means of each of ``PARTS``, in the order of the subnets; empty if they were not
    timed.
    """

    space: SearchSpace
    subnets: list[Subnet]
    latency_ms: list[float]
    repeats_std: float | None
    reference_ms: tuple[float, float, float]
    measured: dict[str, Any]
    parts_ms: dict[str, list[float]] = field(default_factory=dict)

    def at_speed_of(self, measured: Mapping[str, Any]) -> Self:
        """Return these latencies at the machine's speed in another measurement of the space, so that both compare.

        A file's median reference changes with the day, and with each measurement that is added. ``measured`` describes
        the other measurement, as a predictor's does. Nothing changes if it is of another machine or setting, or of an
        earlier version without a reference.
        """
        if REFERENCE not in measured or first_difference(measured, self.measured):
            return self
        factor = measured[REFERENCE] / self.measured[REFERENCE]
        parts = {name: [factor * ms for ms in values] for name, values in self.parts_ms.items()}
        described = self.measured | {REFERENCE: measured[REFERENCE]}
        return replace(self, latency_ms=[factor * ms for ms in self.latency_ms], parts_ms=parts, measured=described)

    def busy(self) -> str | None:
        """Return the signs that the machine had other work during the measurement; None if there are none."""
        low, _, high = self.reference_ms
        signs = []
        if high > MOST_DRIFT * low:
            signs.append(f"the reference subnet took {low:.1f} to {high:.1f} ms")
        if self.repeats_std is not None and self.repeats_std > MOST_SPREAD:
            signs.append(f"repeats of a subnet differ by {self.repeats_std:.1f} % (std)")
        if not signs:
            return None
        return (
            f"the machine was busy: {', '.join(signs)}; these latencies compare roughly with each other, and not with "
            "those of another day or machine"
        )


def latencies_of(
    space: SearchSpace,
    subnets: Sequence[Subnet],
    done: Mapping[str, Sequence[Mapping[str, Any]]],
    header: Mapping[str, Any],
) -> Latencies:
    """Return the latencies of ``subnets``, from all the lines of a file by canonical key."""
    references = [float(row["reference_ms"]) for rows in done.values() for row in rows]
    ends = np.percentile(references, (10, 50, 90)).tolist() if references else [math.nan] * 3
    baseline_ms = ends[1] = statistics.median(references) if references else math.nan

    def corrected(name: str) -> list[list[float]]:
        return [
            [float(row[name]) * baseline_ms / float(row["reference_ms"]) for row in done[subnet.key]]
            for subnet in subnets
        ]

    times = corrected("raw_latency_ms")
    means = [trimmed_mean(values, _TRIM) for values in times]
    apart = all(f"raw_{part}" in row for part in PARTS for subnet in subnets for row in done[subnet.key])
    parts = {p: [trimmed_mean(v, _TRIM) for v in corrected(f"raw_{p}")] for p in PARTS} if apart and subnets else {}
    squares = [statistics.variance(values) / statistics.fmean(values) ** 2 for values in times if len(values) > 1]
    std = 100 * statistics.fmean(squares) ** 0.5 if squares else None
    measured = {part: header[part] for part in MEASURED if part in header} | {REFERENCE: baseline_ms}
    return Latencies(space, list(subnets), means, std, tuple(ends), measured, parts)


def read_latencies(path: str | os.PathLike[str]) -> Latencies:
    """Read a file of :func:`~mos_fairseq.latency.measure_to_file`, complete or not, of this or an earlier version.

    Raises:
        InputError: the file cannot be read, is of another kind, or holds no subnet; or a latency is not a duration.
    """
    rows = read_jsonl(path)
    check_format(path, rows[0] if rows else {})
    space = SearchSpace.from_dict(rows[0].get("search_space", {}))
    if len(rows) == 1:
        raise InputError(f"{path}: it holds no measured subnet")
    found = by_subnet(path, rows)
    for number, row in enumerate(rows[1:], start=2):
        try:
            space.check(Subnet.from_dict(row["subnet"]))
        except InputError as error:
            raise InputError(f"{path}: line {number}: {error}") from None
    subnets = [Subnet.from_dict(lines[0]["subnet"]) for lines in found.values()]
    return latencies_of(space, subnets, found, rows[0])


def check_format(path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
    """Raise InputError unless ``header`` is the first line of a latency file."""
    if header.get("format") not in FORMATS:
        raise InputError(f"{path}: not a latency file (its first line is no header of format {FORMAT!r})")


def first_difference(
    stored: Mapping[str, Any], other: Mapping[str, Any], parts: Sequence[str] = MEASURED
) -> tuple[str, Any, Any] | None:
    """Return (part and key, value in ``stored``, value in ``other``) of the first setting that differs.

    If one lacks ``kernels``, its thresholds are unknown; then only whether kernels were enabled is compared.
    """
    for part in parts:
        one, two = stored.get(part, {}), other.get(part, {})
        if part == "kernels" and not (one and two):
            one, two = ({"enabled": known.get("enabled", True)} for known in (one, two))
        for key in {**one, **two}:
            if one.get(key) != two.get(key):
                return f"{part} {key}", one.get(key), two.get(key)
    return None


def trimmed_mean(values: Sequence[float], trim: float) -> float:
    """Mean without the part ``trim`` of the values at either end. ValueError where one is not finite or none is."""
    if not values or not all(0 < value < float("inf") for value in values):
        raise ValueError(f"latencies must be positive and finite, got {values[:3]}")
    cut = int(trim * len(values))
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def by_subnet(path: str | os.PathLike[str], rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The lines below the header, by canonical key."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        found.setdefault(_subnet_of(path, number, row).key, []).append(row)
    return found


def _subnet_of(path: str | os.PathLike[str], number: int, row: dict[str, Any]) -> Subnet:
    try:
        subnet = Subnet.from_dict(row["subnet"])
        apart = [f"raw_{part}" for part in PARTS if f"raw_{part}" in row]
        times = {name: float(row[name]) for name in ("raw_latency_ms", "reference_ms", *apart)}
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{path}: line {number} is no measured subnet ({error})") from None
    for name, value in times.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{path}: line {number}: {name} is {value}, which is no duration")
    return subnet


def read_hat_csv(path: str | os.PathLike[str]) -> tuple[list[list[float]], list[float]]:
    """(ten averaged features a row, latencies in ms) of a file as HAT (arXiv 2005.14187) publishes them.

    Raises:
        InputError: the file cannot be read, lacks a column, holds no row, or a value is no number.
    """
    rows = read_csv(path)
    if not rows:
        raise InputError(f"{path}: it holds no measured subnet")
    columns = (*HAT_COLUMNS, *HAT_LATENCIES)
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        raise InputError(f"{path}: it lacks the column {missing[0]}")
    features, latencies = [], []
    for number, row in enumerate(rows, start=2):
        try:
            values = [float(row[column]) for column in columns]
        except (TypeError, ValueError):
            raise InputError(f"{path}: line {number} holds something that is no number") from None
        latency_ms = sum(values[len(HAT_COLUMNS) :])
        if not all(map(math.isfinite, values)) or latency_ms <= 0:
            raise InputError(f"{path}: line {number}: latency is {latency_ms} ms, which is no duration")
        features.append(values[: len(HAT_COLUMNS)])
        latencies.append(latency_ms)
    return features, latencies
