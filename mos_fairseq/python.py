"""Processes of Python that use the very package that started them, wherever they are started."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def python_command(*arguments: str) -> list[str]:
    """This Python with ``arguments``, such as ``-m MODULE``; the current folder is no place to import from."""
    return [sys.executable, "-P", *arguments]


def python_environment(**more: str) -> dict[str, str]:
    """The environment for it: this process's own, and what this process imports from, in the same order.

    Without ``-P``, ``python -m`` and ``-c`` look into the current folder first: another copy of this package there, a
    clone for example, would win. ``PYTHONSAFEPATH`` says the same to processes that these start.

    Args:
        more: further variables.
    """
    here = str(Path(__file__).parents[1])
    folders = [folder for folder in sys.path if folder]  # an empty one is the current folder
    if here not in folders:  # found by way of the current folder, or of an editable installation
        folders.insert(0, here)
    return os.environ | {"PYTHONPATH": os.pathsep.join(folders), "PYTHONSAFEPATH": "1"} | more
