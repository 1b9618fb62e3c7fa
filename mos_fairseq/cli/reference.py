"""The options of every command as Markdown, for ``mos_fairseq/cli/README.md``.

python -m mos_fairseq.cli.reference            # prints it
python -m mos_fairseq.cli.reference --write    # puts it into that file, after the line MARK
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from mos_fairseq.cli.index import parsers
from mos_fairseq.files import write_atomically

FILE = Path(__file__).with_name("README.md")
MARK = "<!-- What follows is written by python -m mos_fairseq.cli.reference --write -->"


def reference() -> str:
    """Return a section for each command, with a table for each group of options."""
    return "\n\n".join(section for parser in parsers() for section in _sections(parser, "##")) + "\n"


def _sections(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    yield f"{heading} {parser.prog}\n\n{_text(parser.description or '')}"
    sub_commands: dict[str, argparse.ArgumentParser] = {}
    for group in parser._action_groups:
        rows = []
        for action in group._group_actions:
            if isinstance(action, argparse._SubParsersAction):
                sub_commands |= action.choices
            elif action.help != argparse.SUPPRESS and "--help" not in action.option_strings:
                rows.append(f"| {_name(action)} | {_text(_help(parser, action))} |")
        if rows:
            title = group.title or ""
            titled = "" if title in ("positional arguments", "options") else f"{title[:1].upper()}{title[1:]}:\n\n"
            yield titled + "\n".join(["| | |", "|---|---|", *rows])
    if parser.epilog:
        example = parser.epilog.removeprefix("example:\n")
        yield "\n".join("  " + line for line in example.rstrip().splitlines())  # four spaces in all: a code block
    for sub_command in sub_commands.values():
        yield from _sections(sub_command, heading + "#")


def _name(action: argparse.Action) -> str:
    value = action.metavar or (action.dest if not action.option_strings else action.dest.upper())
    if not action.option_strings:
        return f"`{value}`"
    words = action.option_strings[-1]
    if action.choices is not None:
        return f"`{words}` " + ", ".join(f"`{choice}`" for choice in action.choices)
    return f"`{words}`" if action.nargs == 0 else f"`{words} {value}`"


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return argparse.HelpFormatter(parser.prog)._expand_help(action) if action.help else ""


def _text(text: str) -> str:
    """Return the text on one line, with Markdown's special characters escaped."""
    for character in "\\|<>*_":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())


def main(argv: list[str]) -> None:
    """Command line."""
    if argv not in ([], ["--write"]):
        sys.exit(__doc__)
    if argv:
        kept = FILE.read_text(encoding="utf-8").split(MARK, 1)[0]
        write_atomically(FILE, kept + MARK + "\n\n" + reference())
    else:
        print(reference(), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
