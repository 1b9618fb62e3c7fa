"""The one exception class for users' mistakes.

It is raised with a single line that names the field, the value and what is allowed. It is a ``ValueError``, so library
callers can catch it as usual; the command-line hook in :mod:`mos_fairseq.compat` prints it without a traceback.
"""

import math


class InputError(ValueError):
    """A mistake in the user's input (option, file, checkpoint), reported in one line."""


def at_least(low: float, **values: float | None) -> None:
    """Raise InputError unless each value is ``low`` or more; None counts as not given.

    Keywords are the names of options. The message asks for whole numbers if ``low`` is an int, otherwise for finite
    numbers.
    """
    kind = "whole numbers" if isinstance(low, int) else "numbers"
    for name, value in values.items():
        if value is not None and not low <= value < math.inf:
            raise InputError(f"{name} is {value}: allowed are {kind} from {low:g} up")


def below_one(**values: float) -> None:
    """Raise InputError unless each value is a rate, from 0 to below 1. Keywords are the names of options."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise InputError(f"{name} is {value}: allowed are numbers from 0 to below 1")


def write_failure(error: BaseException) -> str:
    """Return why a file could not be written. On a full disk torch raises a RuntimeError of several lines; the
    system's reason is in its context."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    return " ".join(str(error).split())[:200]
