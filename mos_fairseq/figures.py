"""Plots by matplotlib, written as PNG files. They need no display and share no state.

matplotlib is imported for the first plot: the import is slow, and most runs plot nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mos_fairseq.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, ``width`` x ``height`` inches, whose layout leaves room for labels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG. Raises InputError if the file cannot be written."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))
