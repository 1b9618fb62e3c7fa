"""Console scripts, named like fairseq's: only wiring."""

from __future__ import annotations

import logging
from collections.abc import Sequence


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
