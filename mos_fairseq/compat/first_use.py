"""Modules that fairseq imports for a few functions, and that commands import on first use instead. Needs the standard
library only.

``import fairseq`` imports scikit-learn and SciPy's statistics for the metrics of a criterion and of an audio task. That
takes about a third of a command's start.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

MODULES = ("scipy.stats", "sklearn", "sklearn.metrics")


class Function:
    """A function of a module that is imported when it is called."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Import the module, and return what its function returns."""
        return getattr(importlib.import_module(self.module), self.name)(*args, **named)


class _Placeholder(ModuleType):
    """A module whose names are all functions."""

    def __getattr__(self, name: str) -> Function:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return Function(self.__name__, name)


@contextmanager
def on_first_use() -> Iterator[None]:
    """Within the block, ``from M import f`` gives a :class:`Function` for each M of :data:`MODULES`.

    Modules that are imported already stay. After the block, all imports are the real ones.
    """
    placeholders = {name: _Placeholder(name) for name in MODULES if name not in sys.modules}
    for name, module in placeholders.items():
        package, _, last = name.rpartition(".")
        if package in placeholders:
            setattr(placeholders[package], last, module)
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for name, module in placeholders.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
