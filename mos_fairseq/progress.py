"""Progress bars: a moving bar on a terminal, a line at each tenth elsewhere (in a log)."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


class _Lines(tqdm):
    """Write a line at each completed tenth, and nothing in between."""

    _told = 0  # tenths

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"leave": False})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write the line if it is due. tqdm calls this at every change, with an empty ``msg`` to clear the bar."""
        tenths = 10 * self.n // self.total if self.total else 0
        if msg is None and tenths > self._told:
            self._told = tenths
            self.fp.write(f"{self}\n")
            self.fp.flush()

    def close(self) -> None:
        """Write the last line if it is still due."""
        if not self.disable:
            self.display()
        super().close()


def progress(**options: Any) -> tqdm:
    """Return a bar on standard error; ``options`` are tqdm's."""
    return (tqdm if sys.stderr.isatty() else _Lines)(file=sys.stderr, **options)
