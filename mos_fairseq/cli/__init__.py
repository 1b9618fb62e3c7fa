"""Console scripts, named like fairseq's: only wiring.

Each reads its arguments, and refuses what it can, before torch and fairseq are imported: importing a command's module,
its parser and the options that are made of the arguments needs neither. :func:`start` comes after that.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.model_options import FLAGS

Group = argparse.ArgumentParser | argparse._ArgumentGroup
"""To which options are added."""


class _Help(argparse.HelpFormatter):
    """Lines of examples are left as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example"):
            return text
        return super()._fill_text(text, width, indent)


class _Version(argparse.Action):
    """Looks versions up only when it is asked."""

    def __call__(self, parser: argparse.ArgumentParser, *more: Any) -> None:
        from mos_fairseq.versions import in_one_line

        print(in_one_line())
        parser.exit()


def command_parser(prog: str, description: str, example: str = "") -> argparse.ArgumentParser:
    """The parser of a command, to which its options are added; it knows ``--help`` and ``--version``.

    Args:
        example: a command to type.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False, **example_of(example))
    parser.add_argument("--version", action=_Version, nargs=0, help="show versions, of fairseq and torch too, and exit")
    return parser


def example_of(example: str) -> dict[str, Any]:
    """Arguments of a parser (or sub-parser) whose help ends with the ``example``."""
    epilog = "example:\n" + "".join(f"  {line}\n" for line in example.splitlines()) if example else None
    return {"epilog": epilog, "formatter_class": _Help}


def add_options(parser: Group, options: type, texts: Mapping[str, str]) -> None:
    """An option for each field of a dataclass: numbers and names first, then what is on or off.

    Args:
        texts: help by field, of all but the flags that every model has.
    """
    for option in sorted(fields(options), key=lambda option: isinstance(option.default, bool)):
        name, text = f"--{option.name.replace('_', '-')}", {**FLAGS, **texts}[option.name]
        if isinstance(option.default, bool):
            parser.add_argument(name, action="store_true", help=text)
            continue
        kind, metavar = (str, option.name.upper()) if "str" in option.type else (int, "N")
        values: dict[str, Any] = {"type": kind, "metavar": metavar}
        if option.default is MISSING:
            values["required"] = True
        else:
            values["default"] = option.default
            text += "" if option.default is None else f" (default: {option.default})"
        parser.add_argument(name, help=text, **values)


def split_at_dashes(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's own words, and those after ``--``, which go to ``fairseq-train``."""
    cut = list(words).index("--") if "--" in words else len(words)
    return list(words[:cut]), list(words[cut + 1 :])


def start() -> None:
    """What a command needs after its arguments are read: fairseq with this plugin, and a log of warnings only: fairseq
    opens the root logger for everything, and these commands print for themselves."""
    from mos_fairseq import plugin  # noqa: F401

    logging.getLogger().setLevel(logging.WARNING)


def warn(text: str | None) -> None:
    """Print a warning, if there is one, on standard error."""
    if text is not None:
        print(f"warning: {text}", file=sys.stderr, flush=True)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table as text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def check_exists(path: str) -> str:
    """The path of a checkpoint, which is there. Raises InputError if it is not."""
    if not Path(path).is_file():
        raise InputError(f"checkpoint {path}: no such file")
    return path


def named_paths(texts: Sequence[str]) -> dict[str, str]:
    """Paths by name, of ``NAME=PATH``; a path without a name is called supernet.

    Raises:
        InputError: a bad name, or one that comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = "supernet", text
        if not name.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"path {text}: the name may hold letters, digits, - and _")
        if name in found:
            raise InputError(f"path {text}: give each supernet a name of its own, as in none=CKPT")
        found[name] = path
    return found
