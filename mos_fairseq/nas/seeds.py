"""Known subnets that a search starts from, read from subnet files and the results of other searches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.files import read_text
from mos_fairseq.jsonl import read_jsonl
from mos_fairseq.search_space import SearchSpace, Subnet


def read_seeds(path: str, space: SearchSpace) -> list[Subnet]:
    """Return the subnets of a file.

    ``.jsonl`` (``front.jsonl``, or one subnet a line): all lines; ``.json`` (``search.json``): the front and the best;
    any other file: the one subnet that it describes.

    Raises:
        InputError: the file cannot be read, has another format, or has a subnet outside ``space``; the message names
            the file and the subnet.
    """
    kind = Path(path).suffix
    if kind not in (".json", ".jsonl"):
        subnet = Subnet.load(path, space)
        try:
            space.check(subnet)
        except InputError as error:
            raise InputError(f"seeds_from {path}: {error}") from None
        return [subnet]
    rows = read_jsonl(path) if kind == ".jsonl" else _rows_of(path)
    found = {}
    for number, row in enumerate(rows, start=1):
        try:
            subnet = Subnet.from_dict(row.get("architecture", row))
            space.check(subnet)
        except (InputError, TypeError, ValueError) as error:
            raise InputError(f"seeds_from {path}: subnet {number}: {error}") from None
        found[subnet.key] = subnet
    if not found:
        raise InputError(f"seeds_from {path}: it holds no subnet")
    return list(found.values())


def _rows_of(path: str) -> list[dict[str, Any]]:
    try:
        data = json.loads(read_text(path, "seeds_from"))
        rows = [data["best"], *data["front"]]
    except InputError:
        raise
    except (ValueError, RecursionError, KeyError, TypeError):
        raise InputError(f"seeds_from {path}: not the search.json of a search") from None
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"seeds_from {path}: not the search.json of a search")
    return rows
