"""Measure latencies into a file that grows line by line and can be continued."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.jsonl import JsonlWriter, read_jsonl
from mos_fairseq.latency.measured import (
    FORMAT,
    FORMATS,
    MEASURED,
    Latencies,
    by_subnet,
    check_format,
    first_difference,
    latencies_of,
)
from mos_fairseq.latency.options import REPEATS, LatencyOptions
from mos_fairseq.latency.timer import SubnetTimer, machine, measure_subnet, options_dict
from mos_fairseq.models import placeholder_dictionary
from mos_fairseq.modules import kernels
from mos_fairseq.search_space import SearchSpace, Subnet

_DERIVED = {"latency_ms", "encoder_ms", "decoder_ms"}  # computed fields of a line; format 1 had all three


def measure_to_file(
    path: str | os.PathLike[str],
    space: SearchSpace,
    subnets: Sequence[Subnet],
    options: LatencyOptions,
    repeats: int = REPEATS,
    on_measured: Callable[[dict[str, Any]], object] = lambda row: None,
    threads: int | None = None,
) -> Latencies:
    """Measure ``subnets`` into the file, ``repeats`` times each, and return their latencies from the file.

    Each repeat goes through the whole list, in a new order, before a subnet is measured again: a machine's disturbances
    last longer than the measurement of one subnet. Measurements in the file are not repeated.

    A new file gets a header with machine, kernels, options and the reference subnet (the smallest of the space). Each
    line has the subnet's ``raw_latency_ms`` and the ``reference_ms`` of the same seconds, as timed. When everything is
    measured, each line also gets ``latency_ms``, the same in all lines of a subnet. This function returns it, and
    :func:`~mos_fairseq.latency.read_latencies` reads it: the mean of the middle half of the subnet's
    ``raw_latency_ms``, each times the file's median ``reference_ms`` (in the header) over the line's own. While
    measurements are added, no line has it, since the median may still change.

    Args:
        on_measured: called with every valid line of the file, including those of earlier runs.
        threads: torch's threads on a CPU, if ``options`` leave them open; None keeps torch's own choice.

    Raises:
        InputError: the file has other options, kernels, space or machine, or is damaged.
    """
    at_least(1, repeats=repeats)
    options = options.of_family(space.family)
    with _threads(options.threads or threads):
        check_latency_file(path, space, options, threads)
        words = placeholder_dictionary(options.vocab_size)
        reference = SubnetTimer(space.smallest(), options, words)
        with JsonlWriter(path) as writer:
            rows, header = check_latency_file(path, space, options, threads)  # again, now with the lock
            lines = [header, *({key: row[key] for key in row if key not in _DERIVED} for row in rows[1:])]
            done = by_subnet(path, lines)
            if rows[:1] != lines[:1] or any(row.keys() & _DERIVED for row in rows):
                writer.rewrite(lines)
            for repeat in range(repeats):
                for subnet in _in_order(subnets, repeat):
                    found = done.setdefault(subnet.key, [])
                    if len(found) <= repeat:
                        found.append(measure_subnet(subnet, reference, words))
                        lines.append(found[repeat])
                        writer.append(found[repeat])
                    on_measured(found[repeat])
            writer.rewrite(_reported(space, lines, done))
    return latencies_of(space, subnets, done, header)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Use ``number`` threads of torch within the context; None keeps the present number."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _reported(
    space: SearchSpace, lines: list[dict[str, Any]], done: dict[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return the lines of a finished file, with the reported latency of each line's subnet."""
    header, *rows = lines
    if not rows:
        return lines
    measured = latencies_of(space, [Subnet.from_dict(found[0]["subnet"]) for found in done.values() if found], done, {})
    latency_ms = {subnet.key: ms for subnet, ms in zip(measured.subnets, measured.latency_ms, strict=True)}
    found = [{"subnet": row["subnet"], "latency_ms": latency_ms[Subnet.from_dict(row["subnet"]).key]} for row in rows]
    header = header | {"reference_ms": measured.reference_ms[1]}
    return [header, *(first | row for first, row in zip(found, rows, strict=True))]


def check_latency_file(
    path: str | os.PathLike[str], space: SearchSpace, options: LatencyOptions, threads: int | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return (lines of the file so far, the header of a run with these options), before anything is measured.

    Raises:
        InputError: the run cannot continue the file.
    """
    options = options.of_family(space.family)
    header = {
        "format": FORMAT,
        "search_space": space.to_dict(),
        "options": options_dict(options),
        "machine": machine(options.device, options.threads or threads),
        "kernels": kernels.policy().to_dict(),
        "reference": space.smallest().to_dict(),
    }
    rows = _rows_so_far(path)
    if rows:
        _check_header(path, rows[0], header)
        if "kernels" not in rows[0]:  # from an earlier version, with unknown thresholds
            del header["kernels"]
    by_subnet(path, rows)
    return rows, header


def _in_order(subnets: Sequence[Subnet], repeat: int) -> list[Subnet]:
    """Return the given order for the first repeat, then shuffled ones: no subnet always follows the same one."""
    order = list(subnets)
    if repeat:
        random.Random(f"latency/{repeat}").shuffle(order)
    return order


def _rows_so_far(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the lines of a file to continue. Raises InputError rather than overwrite any other file."""
    if not os.path.exists(path):
        return []
    rows = read_jsonl(path)
    if not rows:
        heads = [json.dumps({"format": name}, separators=(",", ":"))[:-1].encode() for name in FORMATS]
        with open(path, "rb") as file:  # a run may have been killed in the first line
            begin = file.read(len(heads[0]))
            if not any(head.startswith(begin) for head in heads):
                raise InputError(f"{path}: not a latency file, and not empty")
    return rows


def _check_header(path: str | os.PathLike[str], stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise InputError unless a run with the header ``wanted`` can continue a file with the header ``stored``."""
    check_format(path, stored)
    parts = ("search_space", *MEASURED)
    for part in parts:
        if not isinstance(stored.get(part, {} if part == "kernels" else None), dict):
            raise InputError(f"{path}: not a latency file (its header lacks {part})")
    if found := first_difference(stored, wanted, parts):
        what, old, new = (value if value not in ("", None) else "none" for value in found)
        raise InputError(
            f"{path}: it was measured with {what}={old}, this run has {new}; give another file, or "
            "run with the settings and environment of the first one"
        )
