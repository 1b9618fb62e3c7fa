"""Console scripts, named like fairseq's: only wiring.

Each command reads its arguments, and refuses as many mistakes as it can, before torch and fairseq are imported: its
module, its parser and the options built from the arguments need neither. Then it calls :func:`start`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.model_options import FLAGS

Group = argparse.ArgumentParser | argparse._ArgumentGroup
"""Objects with ``add_argument``."""


class _Help(argparse.HelpFormatter):
    """Keep the lines of examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example"):
            return text
        return super()._fill_text(text, width, indent)


class _Version(argparse.Action):
    """Look up versions only on request."""

    def __call__(self, parser: argparse.ArgumentParser, *more: Any) -> None:
        from mos_fairseq.versions import in_one_line

        print(in_one_line())
        parser.exit()


def command_parser(prog: str, description: str, example: str = "") -> argparse.ArgumentParser:
    """Return a parser without a command's own options; it has ``--help`` and ``--version``.

    Args:
        example: a command to type.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False, **example_of(example))
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show versions, including fairseq and torch, and exit"
    )
    return parser


def example_of(example: str) -> dict[str, Any]:
    """Return arguments of a parser (or sub-parser) whose help ends with the ``example``."""
    epilog = "example:\n" + "".join(f"  {line}\n" for line in example.splitlines()) if example else None
    return {"epilog": epilog, "formatter_class": _Help}


def add_options(parser: Group, options: type, texts: Mapping[str, str]) -> None:
    """Add an option for each field of a dataclass: numbers and names first, then flags.

    Args:
        texts: help by field, for all fields but the flags that every model has.
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
    """Return a command's own words, and the words after ``--``, which go to ``fairseq-train``."""
    cut = list(words).index("--") if "--" in words else len(words)
    return list(words[:cut]), list(words[cut + 1 :])


def start() -> None:
    """Start after the arguments are read: import fairseq with this plugin, and log warnings only. fairseq sets the root
    logger to its lowest level, but these commands print their own output."""
    from mos_fairseq import plugin  # noqa: F401

    logging.getLogger().setLevel(logging.WARNING)


def warn(text: str | None) -> None:
    """Print a warning, if any, on standard error."""
    if text is not None:
        print(f"warning: {text}", file=sys.stderr, flush=True)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Format a table as text: the first column aligned left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def check_exists(path: str) -> str:
    """Return the path of an existing checkpoint. Raises InputError if it does not exist."""
    if not Path(path).is_file():
        problem = "it is a folder, allowed is a file in it" if Path(path).is_dir() else "no such file"
        raise InputError(f"checkpoint {path}: {problem}")
    return path


def check_output(output: str, **inputs: str | None) -> None:
    """Raise InputError if the file to write is one of ``inputs``, paths by the name of their option."""
    for name, path in inputs.items():
        if path is not None and os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise InputError(f"output is {output}: it is {name}, too, which would be lost; give another name")


def check_seed(seed: int) -> None:
    """Raise InputError unless all generators take the seed."""
    if not 0 <= seed < 2**31:
        raise InputError(f"seed is {seed}: allowed are whole numbers from 0 to below 2^31")


def named_paths(texts: Sequence[str]) -> dict[str, str]:
    """Return paths by name, from ``NAME=PATH``; a path without a name is called supernet.

    Raises:
        InputError: a name is invalid, or occurs twice.
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
