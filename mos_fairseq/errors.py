"""The one exception class for users' mistakes.

Raised with a single line that names the field, the value and what is allowed. It is a ``ValueError``, so library
callers need to know nothing new; the command-line hook in :mod:`mos_fairseq.compat` prints it without a traceback.
"""

import math


class InputError(ValueError):
    """A mistake in what the user gave (option, file, checkpoint), told in one line."""


def at_least(low: float, **values: float | None) -> None:
    """Raise InputError unless each value, by the name of its option, is ``low`` or more; None is not given.

    An int for ``low`` is of whole numbers, in the message; a float of finite numbers.
    """
    kind = "whole numbers" if isinstance(low, int) else "numbers"
    for name, value in values.items():
        if value is not None and not low <= value < math.inf:
            raise InputError(f"{name} is {value}: allowed are {kind} from {low:g} up")


def below_one(**values: float) -> None:
    """Raise InputError unless each value, by the name of its option, is a rate: a number from 0 to below 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise InputError(f"{name} is {value}: allowed are numbers from 0 to below 1")


def write_failure(error: BaseException) -> str:
    """Why a file could not be written. torch tells of a full disk with a RuntimeError of its own, several lines long;
    the system's reason is in its context."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    return " ".join(str(error).split())[:200]
