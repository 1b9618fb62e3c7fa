"""Processes that end with the program that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def end_with(parent: int | None) -> bool:
    """Let this process end when the one that started it ends, also if it is killed. Only Linux does so.

    Args:
        parent: the process that started this one.

    Returns:
        whether it still runs; if not, this process has no work left.
    """
    if sys.platform != "linux":
        return True
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    return os.getppid() == parent  # it may have ended before the signal was set
