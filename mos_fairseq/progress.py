"""Progress bars: on a terminal one that moves, elsewhere (a log) a line at each tenth."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


class _Lines(tqdm):
    """Writes a line whenever another tenth is done, and nothing in between."""

    _told = 0  # tenths

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"leave": False})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Called by tqdm at every change; with an empty ``msg`` to wipe the bar."""
        tenths = 10 * self.n // self.total if self.total else 0
        if msg is None and tenths > self._told:
            self._told = tenths
            self.fp.write(f"{self}\n")
            self.fp.flush()

    def close(self) -> None:
        """The last line, where it is not written yet."""
        if not self.disable:
            self.display()
        super().close()


def progress(**options: Any) -> tqdm:
    """A bar on standard error; ``options`` are tqdm's."""
    return (tqdm if sys.stderr.isatty() else _Lines)(file=sys.stderr, **options)
