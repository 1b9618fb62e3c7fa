"""The one exception class for users' mistakes.

Raised with a single line that names the field, the value and what is allowed. It is a ``ValueError``, so library
callers need to know nothing new; the command-line hook in :mod:`mos_fairseq.compat` prints it without a traceback.
"""


class InputError(ValueError):
    """A mistake in what the user gave (option, file, checkpoint), told in one line."""


def write_failure(error: BaseException) -> str:
    """Why a file could not be written. torch tells of a full disk with a RuntimeError of its own, several lines long;
    the system's reason is in its context."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    return " ".join(str(error).split())[:200]
