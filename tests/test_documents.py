"""README and linked documents: working links, existing options, and an up-to-date reference."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mos_fairseq.cli import reference
from mos_fairseq.cli.index import parsers

ROOT = Path(__file__).resolve().parents[1]
TRACKED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
DOCUMENTS = TRACKED or [str(path.relative_to(ROOT)) for path in ROOT.glob("[!.]*/**/*.md")] + ["README.md"]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


def text_of(document: str) -> str:
    """Return the text without code, where brackets have other meanings."""
    return re.sub(r"`[^`\n]*`", "`", (ROOT / document).read_text(encoding="utf-8"))


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub makes from the headings."""
    found = set()
    fenced = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.S | re.M)
    for heading in re.findall(r"^#+ (.+)$", fenced, re.M):
        found.add("#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for path, anchor in LINK.findall(text_of(document)):
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target), path + anchor


def test_readme_can_be_read_at_one_sitting():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


def test_the_reference_is_up_to_date():
    kept, mark, written = reference.FILE.read_text(encoding="utf-8").partition(reference.MARK + "\n\n")
    assert mark and written == reference.reference(), "python -m mos_fairseq.cli.reference --write"
    for parser in parsers():
        assert f"## {parser.prog}\n\n" in written


def commands(document: str) -> list[list[str]]:
    """The words of each mos- command in a document's code."""
    text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^    (?:.*&& )?(mos-.+)$", text, re.M)
    return [re.split(r"\s+#|\s+--\s", line)[0].split() for line in lines]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_have_these_options(document):
    known = {}
    for parser in parsers():
        subs = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        every = [parser, *(sub for choices in subs for sub in choices.values())]
        known[parser.prog] = {option for each in every for action in each._actions for option in action.option_strings}
    for name, *words in commands(document):
        options = {word.split("=")[0].rstrip("`,") for word in words if word.startswith("--") and word != "--"}
        assert options <= known[name], (name, options - known[name])


def test_commands_are_found_in_documents():
    assert sum(map(len, map(commands, DOCUMENTS))) > 20
    assert shutil.which("mos-search")
