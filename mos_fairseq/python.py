"""Start Python processes that use the same copy of this package, whatever their working folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def python_command(*arguments: str) -> list[str]:
    """Return this Python with ``arguments``, such as ``-m MODULE``; it does not import from the current folder."""
    return [sys.executable, "-P", *arguments]


def python_environment(**more: str) -> dict[str, str]:
    """Return the environment for such a process: this process's own, with the same import path in the same order.

    Without ``-P``, ``python -m`` and ``-c`` search the current folder first. Another copy of this package there, such
    as a clone, would win. ``PYTHONSAFEPATH`` passes the setting on to processes that these start.

    Args:
        more: further variables.
    """
    here = str(Path(__file__).parents[1])
    folders = [folder for folder in sys.path if folder]  # the empty path is the current folder
    if here not in folders:  # the package was found through the current folder, or of an editable installation
        folders.insert(0, here)
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders), "PYTHONSAFEPATH": "1"} | more
