"""Which of fairseq's commands called, for options that act under some of them only."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import FrameType

COMMANDS = ("train", "generate", "interactive", "validate")


@dataclass(frozen=True)
class Command:
    """One of :data:`COMMANDS`.

    Args:
        name: its name, without ``fairseq-``.
        arguments: words of the command line; empty where a program called the command's ``main``.
        overrides: names of the options that ``fairseq-validate`` puts in place of a checkpoint's; empty elsewhere.
    """

    name: str
    arguments: tuple[str, ...] = ()
    overrides: frozenset[str] = frozenset()

    def is_given(self, option: str) -> bool:
        """Whether the command line names ``option``, whatever its value."""
        flag = "--" + option.replace("_", "-")
        return option in self.overrides or any(word.partition("=")[0] == flag for word in self.arguments)


def calling_command() -> Command | None:
    """The command that called, directly or not; None in a program that uses the library, and in our own commands.

    It is told by the functions that are running, ``fairseq_cli.COMMAND.main``: so the same whether a console script,
    ``python -m``, torchrun, ``fairseq-hydra-train`` or a process that one of these started runs them.
    """
    found, overrides, frame = None, frozenset(), sys._getframe(1)
    while frame is not None:
        package, _, name = _module_of(frame).rpartition(".")
        if package == "fairseq_cli" and name in COMMANDS:
            if frame.f_code.co_name in ("main", "_main"):
                found = found or name
                if (override_args := frame.f_locals.get("override_args")) is not None:
                    overrides = frozenset(vars(override_args))
            elif frame.f_code.co_name == "cli_main" and name == found:
                return Command(name, tuple(sys.argv[1:]), overrides)
        frame = frame.f_back
    return Command(found, overrides=overrides) if found else None


def _module_of(frame: FrameType) -> str:
    """The dotted name of the module whose code the frame runs, under ``python -m`` too."""
    name, spec = frame.f_globals.get("__name__", ""), frame.f_globals.get("__spec__")
    return spec.name if name == "__main__" and spec is not None else name
