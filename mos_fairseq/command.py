"""Find the fairseq command that runs, for options that act under some commands only."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

COMMANDS = ("train", "generate", "interactive", "validate", "eval_lm")


@dataclass(frozen=True)
class Command:
    """One of :data:`COMMANDS`.

    Args:
        name: without ``fairseq-``.
        arguments: words of the command line; empty if a program called the command's ``main``.
        overrides: options that ``fairseq-validate`` overrides in a checkpoint, and their values; empty elsewhere.
    """

    name: str
    arguments: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def is_given(self, option: str) -> bool:
        """Return whether the command line names ``option``, whatever its value."""
        flag = "--" + option.replace("_", "-")
        return option in self.overrides or any(word.partition("=")[0] == flag for word in self.arguments)


def calling_command() -> Command | None:
    """Return the fairseq command that runs; None in a program that uses the library, and in ``mos-`` commands.

    The stack is searched for ``main`` in a file of ``fairseq_cli``. So the answer is the same for a console script,
    ``python -m``, torchrun, ``fairseq-hydra-train``, and a process that one of these started.
    """
    found: str | None = None
    overrides: dict[str, Any] = {}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file, function = Path(frame.f_code.co_filename), frame.f_code.co_name
        if file.parent.name == "fairseq_cli" and file.stem in COMMANDS:
            if function in ("main", "_main"):
                found = found or file.stem
                if (override_args := frame.f_locals.get("override_args")) is not None:
                    overrides = dict(vars(override_args))
            elif function == "cli_main" and file.stem == found:
                return Command(found, tuple(sys.argv[1:]), overrides)
        frame = frame.f_back
    return Command(found, overrides=overrides) if found else None
