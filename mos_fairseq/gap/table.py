"""Tables of scores with one row per architecture: ``mos-gap`` writes them, and reads others."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.scoring import TEXT_METRICS
from mos_fairseq.files import read_csv, write_atomically
from mos_fairseq.jsonl import read_jsonl

COLUMNS = ("subnet", "inherited", "standalone")
_SURE = (*(f"{name}_ci" for name in TEXT_METRICS), "p_value")  # numbers of the paired bootstrap


@dataclass(frozen=True)
class Row:
    """Scores of one architecture in one supernet.

    Args:
        subnet: its name.
        inherited, standalone: score with the supernet's weights, and score trained alone.
        supernet: name of the supernet.
        metric: name of the score; ``loss`` and ``ppl`` are better when lower, all others when higher.
        finetuned: scores of the inherited weights, keyed by the number of updates of fine-tuning.
        extra_updates: the smallest of these numbers that reaches the standalone score; None if none does or is known.
        details: all other columns of the row.
    """

    subnet: str
    inherited: float
    standalone: float
    supernet: str = "supernet"
    metric: str = "bleu"
    finetuned: dict[int, float] = field(default_factory=dict)
    extra_updates: int | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; :func:`read_table` reads them back."""
        names = ("supernet", "subnet", "metric", "inherited", "standalone", "extra_updates")
        finetuned = {"finetuned": {str(updates): score for updates, score in self.finetuned.items()}}
        return {name: getattr(self, name) for name in names} | (finetuned if self.finetuned else {}) | self.details


def write_table(rows: Iterable[Row], path: str | os.PathLike[str]) -> None:
    """Write rows as JSON lines, atomically. Raises InputError if the file cannot be written."""
    write_atomically(path, "".join(json.dumps(row.to_dict(), allow_nan=False) + "\n" for row in rows))


def read_table(path: str | os.PathLike[str]) -> list[Row]:
    """Read rows from JSON lines, or from CSV with a header line (a file whose name ends in ``.csv``).

    Columns ``subnet``, ``inherited`` and ``standalone`` are needed; ``supernet``, ``metric`` and ``extra_updates`` are
    optional; all others are kept as details.

    Raises:
        InputError: the file cannot be read or is empty; a row lacks a column or has no number in it; or two rows have
            the same subnet, supernet and metric.
    """
    plain = _rows_of_csv(path) if os.fspath(path).endswith(".csv") else read_jsonl(path)
    if not plain:
        raise InputError(f"{path}: it holds no rows")
    rows = [_row(values, f"{path}: row {number}") for number, values in enumerate(plain, start=1)]
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        name = (row.supernet, row.subnet, row.metric)
        if name in seen:
            whose = f" of {row.supernet}" if row.supernet else ""
            raise InputError(f"{path}: subnet {row.subnet}{whose} has two rows of {row.metric}")
        seen.add(name)
    return rows


def _rows_of_csv(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read rows, without cells that are empty or have no column."""
    return [{key: value for key, value in row.items() if key and value not in (None, "")} for row in read_csv(path)]


def _row(values: dict[str, Any], where: str) -> Row:
    missing = [name for name in COLUMNS if values.get(name) is None]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}; needed are {', '.join(COLUMNS)}")
    extra, finetuned = values.get("extra_updates"), values.get("finetuned") or {}
    known = {*COLUMNS, "supernet", "metric", "extra_updates", "finetuned"}
    sure = {name: _number(values[name], f"{where}: {name}") for name in _SURE if name in values}
    if not isinstance(values.get("compared_with", ""), str):
        raise InputError(f"{where}: compared_with is {values['compared_with']}: allowed is the name of a supernet")
    if not isinstance(finetuned, dict):
        raise InputError(f"{where}: finetuned is {finetuned}: allowed is an object of updates and scores")
    details = {key: value for key, value in values.items() if key not in known} | sure
    for name, value in details.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:  # of 1e999, which Python reads as infinity
            raise InputError(f"{where}: {name} is {value}: allowed are finite numbers") from None
    return Row(
        subnet=str(values["subnet"]),
        inherited=_number(values["inherited"], f"{where}: inherited"),
        standalone=_number(values["standalone"], f"{where}: standalone"),
        supernet=str(values.get("supernet", "supernet")),
        metric=str(values.get("metric", "bleu")),
        finetuned={_whole(k, where): _number(v, f"{where}: finetuned {k}") for k, v in finetuned.items()},
        extra_updates=None if extra is None else _whole(extra, where),
        details=details,
    )


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise InputError(f"{where} is {value}: allowed are numbers")
    return number


def _whole(value: Any, where: str) -> int:
    number = _number(value, f"{where}: number of updates")
    if number < 0 or number != int(number):
        raise InputError(f"{where}: number of updates is {value}: allowed are whole numbers from 0")
    return int(number)
