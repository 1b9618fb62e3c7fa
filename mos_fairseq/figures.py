"""Pictures by matplotlib, written as PNG files. None needs a display, or knows of any other.

matplotlib is imported when the first one is made: it takes long, and most runs draw nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mos_fairseq.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, which finds room for its labels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG. Raises InputError if the file cannot be written."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))
