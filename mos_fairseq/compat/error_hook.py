"""Report users' mistakes in one line where a command runs, and the end of another of its processes, which no traceback
of this process explains. Needs the standard library only."""

from __future__ import annotations

import os
import re
import sys
import types

from ..errors import InputError

SHOW_TRACEBACK = "MOS_FAIRSEQ_TRACEBACK"

_SPAWN = "torch.multiprocessing.spawn"  # by which fairseq starts a process for each GPU
_RAISED = re.compile(r"^mos_fairseq\.(?:errors|compat\.\w+)\.\w+Error: (.*)", re.M)  # its subclasses are in compat
_LOST = re.compile(
    r"(?:gloo|nccl|tcpstore).*?(closed by peer|reset by peer|broken pipe|remote process exited)", re.I | re.S
)
"""What torch's backends of distributed training say when the other end of a connection is gone."""


def install_error_hook() -> None:
    """Print an :class:`InputError`, or torch's error about a lost process, as one line on stderr instead of a
    traceback; the exit status stays 1.

    fairseq has no error reporting of its own and wraps some errors in others, so the chain of causes is searched. All
    other errors go to the previous hook, and with MOS_FAIRSEQ_TRACEBACK=1 every error does.
    """
    previous = sys.excepthook
    if hasattr(previous, "_mos_fairseq_original"):
        return

    def report(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        wanted = os.environ.get(SHOW_TRACEBACK, "0") not in ("", "0")
        found = None if wanted else _find(error)
        if found is None:
            previous(kind, error, trace)
        else:
            print(f"error: {found}", file=sys.stderr)

    report._mos_fairseq_original = previous  # type: ignore[attr-defined]
    sys.excepthook = report


def let_hydra_pass_mistakes() -> None:
    """Let an :class:`InputError` reach the hook: Hydra prints exceptions itself, with a traceback.

    Under a debugger, Hydra lets every exception pass. It checks for a debugger when an exception has been raised, so
    the replacement looks at that exception.
    """
    from hydra._internal import utils  # fairseq-hydra-train has imported it

    original = utils.is_under_debugger
    if hasattr(original, "_mos_fairseq_original"):
        return

    def is_under_debugger() -> bool:
        return _find(sys.exc_info()[1]) is not None or original()

    is_under_debugger._mos_fairseq_original = original  # type: ignore[attr-defined]
    utils.is_under_debugger = is_under_debugger


def _find(error: BaseException | None) -> str | None:
    """Return the line to print, of the first error in the chain of causes that has one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, InputError):
            return str(error)
        if (line := _lost_process(error)) is not None:
            return line
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _lost_process(error: BaseException) -> str | None:
    """Return the line about an error of torch's that another process has ended, or made a mistake, otherwise None."""
    if type(error).__module__ == _SPAWN:
        if raised := _RAISED.search(str(error)):
            return raised[1]
        how = str(error) if type(error).__name__ == "ProcessExitedException" else _said(str(error))
    else:
        how = _said(str(error)) if isinstance(error, RuntimeError) else None
    if how is None:
        return None
    return f"another process of this command has ended ({how}): its log says why; the same command goes on where it was"


def _said(text: str) -> str | None:
    found = _LOST.search(text)
    return found and found[1].lower()
