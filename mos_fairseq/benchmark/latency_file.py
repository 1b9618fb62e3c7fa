"""Files of measured latencies: JSON Lines, a header and then one subnet a line; and HAT's published CSV files."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable
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
)
from mos_fairseq.errors import InputError
from mos_fairseq.jsonl import JsonlWriter, read_jsonl
from mos_fairseq.models import placeholder_dictionary
from mos_fairseq.search_space import SearchSpace, Subnet

FORMAT = "mos-latency 1"
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
    subnets: Iterable[Subnet],
    options: LatencyOptions,
    on_subnet: Callable[[dict[str, Any]], object] = lambda row: None,
) -> list[dict[str, Any]]:
    """Measure ``subnets`` into the file, those that are in it already left out, and return the lines of all.

    A new file gets a header with machine, options and the reference subnet (the smallest of the space) whose first
    latency is the baseline that every result is corrected to, also when the file is continued later.

    Raises:
        InputError: the file was made with other options, of another space, or on another machine, or is damaged.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    words = placeholder_dictionary(options.vocab_size)
    reference = SubnetTimer(space.smallest(), options, words)
    header = {
        "format": FORMAT,
        "search_space": space.to_dict(),
        "options": options_dict(options),
        "machine": machine(options),
        "reference": space.smallest().to_dict(),
    }
    rows = _rows_so_far(path)
    if rows:
        _check_header(path, rows[0], header)
    with JsonlWriter(path) as writer:
        if not rows:
            # against itself, as it will run against others
            first, second = time_in_turn(reference, SubnetTimer(space.smallest(), options, words))
            baseline_ms = summarise(first + second).latency_ms
            rows = [header | {"reference_ms": baseline_ms}]
            writer.append(rows[0])
        done = {_subnet_of(path, number, row).key: row for number, row in enumerate(rows[1:], start=2)}
        found = []
        for subnet in subnets:
            if subnet.key not in done:
                done[subnet.key] = measure_subnet(subnet, reference, rows[0]["reference_ms"], words)
                writer.append(done[subnet.key])
            found.append(done[subnet.key])
            on_subnet(done[subnet.key])
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
        latency_ms = float(row["latency_ms"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: line {number} is no measured subnet ({error})") from None
    if not (math.isfinite(latency_ms) and latency_ms > 0):
        raise InputError(f"{path}: line {number}: latency_ms is {latency_ms}, which is no duration")
    return subnet


@dataclass(frozen=True)
class Latencies:
    """Measured subnets of a space; ``measured``: options and machine."""

    space: SearchSpace
    subnets: list[Subnet]
    latency_ms: list[float]
    measured: dict[str, Any]


def read_latencies(path: str | os.PathLike[str]) -> Latencies:
    """A file of :func:`measure_to_file`.

    Raises:
        InputError: the file cannot be read, is of another kind, or holds no subnet; or a latency is no duration.
    """
    rows = read_jsonl(path)
    if not rows or rows[0].get("format") != FORMAT:
        raise InputError(f"{path}: not a latency file (its first line is no header of format {FORMAT!r})")
    space = SearchSpace.from_dict(rows[0].get("search_space", {}))
    subnets = [_subnet_of(path, number, row) for number, row in enumerate(rows[1:], start=2)]
    if not subnets:
        raise InputError(f"{path}: it holds no measured subnet")
    for number, subnet in enumerate(subnets, start=2):
        try:
            space.check(subnet)
        except InputError as error:
            raise InputError(f"{path}: line {number}: {error}") from None
    measured = {part: rows[0].get(part, {}) for part in ("options", "machine")}
    return Latencies(space, subnets, [float(row["latency_ms"]) for row in rows[1:]], measured)


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
