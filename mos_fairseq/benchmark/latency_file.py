"""Files of measured latencies: JSON Lines, a header and then one measurement a line; and HAT's published CSV files."""

from __future__ import annotations

import csv
import json
import math
import os
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mos_fairseq.benchmark.latency import (
    LatencyOptions,
    SubnetTimer,
    machine,
    measure_subnet,
    options_dict,
    summarise,
    time_in_turn,
    trimmed_mean,
)
from mos_fairseq.errors import InputError
from mos_fairseq.jsonl import JsonlWriter, read_jsonl
from mos_fairseq.models import placeholder_dictionary
from mos_fairseq.search_space import SearchSpace, Subnet

FORMAT = "mos-latency 1"
# Visits of a subnet, spread over the whole run. Visits of 5 iterations differed by 5.7 %, of which the scatter of their
# iterations explains 3 to 4: longer visits cannot remove the rest, more of them do (halves of 20 visits agree to 2.0 %,
# of 8 to 3.2 %, of 4 to 4.4 %). Ten times 1 + 5 runs take as long as three times 3 + 20 did.
REPEATS = 10
_TRIM = 0.25  # of visits at either end
# of a published file, in order; then encoder and decoder mean and standard deviation in ms
HAT_COLUMNS = (
    "encoder_embed_dim",
    "encoder_layer_num",
    "encoder_ffn_embed_dim_avg",
    "encoder_self_attention_heads_avg",
    "decoder_embed_dim",
    "decoder_layer_num",
    "decoder_ffn_embed_dim_avg",
    "decoder_self_attention_heads_avg",
    "decoder_ende_attention_heads_avg",
    "decoder_arbitrary_ende_attn_avg",
)
HAT_LATENCIES = ("latency_mean_encoder", "latency_mean_decoder")


def measure_to_file(
    path: str | os.PathLike[str],
    space: SearchSpace,
    subnets: Sequence[Subnet],
    options: LatencyOptions,
    repeats: int = REPEATS,
    on_measured: Callable[[dict[str, Any]], object] = lambda row: None,
) -> Latencies:
    """Measure ``subnets`` into the file, ``repeats`` times each, and return what the file then says of them.

    The whole list is gone through before a subnet is measured again, since a machine's disturbances last longer than
    the measurement of one subnet; each time in another order. What the file has already is not measured again.

    A new file gets a header with machine, options and the reference subnet (the smallest of the space) with its first
    latency, ``reference_ms``. Each line says, as timed, the subnet's ``raw_latency_ms`` and the ``reference_ms`` of the
    same seconds; its ``latency_ms`` is corrected to the header's, for looking at: that was one moment, and may have
    been a bad one. What is returned, here and by :func:`read_latencies`, is ``raw_latency_ms`` times the median
    ``reference_ms`` of all lines over the line's own.

    Args:
        on_measured: called with every line of the file that counts, also with those of earlier runs.

    Raises:
        InputError: the file was made with other options, of another space, or on another machine, or is damaged.
    """
    if repeats < 1:
        raise InputError(f"repeats is {repeats}: allowed are whole numbers from 1")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    rows, header = check_latency_file(path, space, options)
    words = placeholder_dictionary(options.vocab_size)
    reference = SubnetTimer(space.smallest(), options, words)
    with JsonlWriter(path) as writer:
        if not rows:
            # against itself, as it will run against others
            first, second = time_in_turn(reference, SubnetTimer(space.smallest(), options, words))
            baseline_ms = summarise(first + second).latency_ms
            rows = [header | {"reference_ms": baseline_ms}]
            writer.append(rows[0])
        done = _by_subnet(path, rows)
        for repeat in range(repeats):
            for subnet in _in_order(subnets, repeat):
                found = done.setdefault(subnet.key, [])
                if len(found) <= repeat:
                    found.append(measure_subnet(subnet, reference, rows[0]["reference_ms"], words))
                    writer.append(found[repeat])
                on_measured(found[repeat])
    return _latencies(space, subnets, done, rows[0])


def check_latency_file(
    path: str | os.PathLike[str], space: SearchSpace, options: LatencyOptions
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(lines of the file so far, the header that a run of these options writes), before anything is measured.

    Raises:
        InputError: the run cannot go on with the file.
    """
    header = {
        "format": FORMAT,
        "search_space": space.to_dict(),
        "options": options_dict(options),
        "machine": machine(options.device, options.threads),
        "reference": space.smallest().to_dict(),
    }
    rows = _rows_so_far(path)
    if rows:
        _check_header(path, rows[0], header)
    _by_subnet(path, rows)
    return rows, header


def _in_order(subnets: Sequence[Subnet], repeat: int) -> list[Subnet]:
    """The given order at first, then shuffled: no subnet shall always follow the same one."""
    order = list(subnets)
    if repeat:
        random.Random(f"latency/{repeat}").shuffle(order)
    return order


def _by_subnet(path: str | os.PathLike[str], rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The lines below the header, by canonical key."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        found.setdefault(_subnet_of(path, number, row).key, []).append(row)
    return found


def _rows_so_far(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a file that is to be continued. Raises InputError rather than overwrite something else."""
    if not os.path.exists(path):
        return []
    rows = read_jsonl(path)
    if not rows:
        head = json.dumps({"format": FORMAT}, separators=(",", ":"))[:-1].encode()  # killed in the first line
        with open(path, "rb") as file:
            if not head.startswith(file.read(len(head))):
                raise InputError(f"{path}: not a latency file, and not empty")
    return rows


def _check_header(path: str | os.PathLike[str], stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise InputError unless a file with the header ``stored`` can be continued by a run with ``wanted``."""
    if stored.get("format") != FORMAT or not isinstance(stored.get("reference_ms"), float):
        raise InputError(f"{path}: not a latency file (its first line is no header of format {FORMAT!r})")
    for part in ("search_space", "options", "machine"):
        old, new = stored.get(part), wanted[part]
        if not isinstance(old, dict):
            raise InputError(f"{path}: not a latency file (its header lacks {part})")
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                raise InputError(
                    f"{path}: it was measured with {part} {key}={old.get(key)}, this run has {new.get(key)}; "
                    "give another file"
                )


def _subnet_of(path: str | os.PathLike[str], number: int, row: dict[str, Any]) -> Subnet:
    try:
        subnet = Subnet.from_dict(row["subnet"])
        times = {name: float(row[name]) for name in ("raw_latency_ms", "reference_ms")}
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{path}: line {number} is no measured subnet ({error})") from None
    for name, value in times.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{path}: line {number}: {name} is {value}, which is no duration")
    return subnet


@dataclass(frozen=True)
class Latencies:
    """Measured subnets of a space: of each one's measurements, each corrected to the median of the reference, the mean
    of the middle half.

    A shared machine makes outliers: halves of 20 visits to 205 subnets agreed to 1.29 % (Kendall's tau 0.909) by this
    mean, and to 1.46 % (0.898) by that of all visits. Weights by the scatter of a visit's iterations made it worse:
    that is not the scatter of visits.

    ``repeats_std``: standard deviation of single measurements of the same subnet, in per cent of their mean, root mean
    square over the subnets; None where none was measured twice. ``measured``: options and machine.
    """

    space: SearchSpace
    subnets: list[Subnet]
    latency_ms: list[float]
    repeats_std: float | None
    measured: dict[str, Any]


def _latencies(
    space: SearchSpace, subnets: Sequence[Subnet], done: dict[str, list[dict[str, Any]]], header: dict[str, Any]
) -> Latencies:
    """Of ``subnets``, from all the lines of a file by canonical key."""
    references = [float(row["reference_ms"]) for rows in done.values() for row in rows]
    baseline_ms = statistics.median(references) if references else math.nan
    times = [
        [float(row["raw_latency_ms"]) * baseline_ms / float(row["reference_ms"]) for row in done[subnet.key]]
        for subnet in subnets
    ]
    means = [trimmed_mean(values, _TRIM) for values in times]
    squares = [statistics.variance(values) / statistics.fmean(values) ** 2 for values in times if len(values) > 1]
    std = 100 * statistics.fmean(squares) ** 0.5 if squares else None
    measured = {part: header.get(part, {}) for part in ("options", "machine")}
    return Latencies(space, list(subnets), means, std, measured)


def read_latencies(path: str | os.PathLike[str]) -> Latencies:
    """A file of :func:`measure_to_file`.

    Raises:
        InputError: the file cannot be read, is of another kind, or holds no subnet; or a latency is no duration.
    """
    rows = read_jsonl(path)
    if not rows or rows[0].get("format") != FORMAT:
        raise InputError(f"{path}: not a latency file (its first line is no header of format {FORMAT!r})")
    space = SearchSpace.from_dict(rows[0].get("search_space", {}))
    if len(rows) == 1:
        raise InputError(f"{path}: it holds no measured subnet")
    found = _by_subnet(path, rows)
    for number, row in enumerate(rows[1:], start=2):
        try:
            space.check(Subnet.from_dict(row["subnet"]))
        except InputError as error:
            raise InputError(f"{path}: line {number}: {error}") from None
    subnets = [Subnet.from_dict(lines[0]["subnet"]) for lines in found.values()]
    return _latencies(space, subnets, found, rows[0])


def read_hat_csv(path: str | os.PathLike[str]) -> tuple[list[list[float]], list[float]]:
    """(ten averaged features a row, latencies in ms) of a file as HAT (arXiv 2005.14187) publishes them.

    Raises:
        InputError: the file cannot be read, lacks a column, holds no row, or a value is no number.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{path}: not a CSV file") from None
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
