"""Console scripts, named like fairseq's: only wiring."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mos_fairseq.errors import InputError


def quiet() -> None:
    """Log warnings only: fairseq opens the root logger for everything, and these commands print for themselves."""
    logging.getLogger().setLevel(logging.WARNING)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table as text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def make_folder(path: str) -> None:
    """Make the folder of the results, if it is not there. Raises InputError if it cannot be made."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {path}: cannot be made ({error.strerror or error})") from None


def named_paths(texts: Sequence[str]) -> dict[str, str]:
    """Paths by name, of ``NAME=PATH``; a path without a name is called supernet.

    Raises:
        InputError: a bad name, or one that comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = "supernet", text
        if not name.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"path {text}: the name may hold letters, digits, - and _")
        if name in found:
            raise InputError(f"path {text}: give each supernet a name of its own, as in none=CKPT")
        found[name] = path
    return found
