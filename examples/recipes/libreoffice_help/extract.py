#!/usr/bin/env python3
"""Extract a parallel corpus from two languages of LibreOffice's help pages.

    python examples/recipes/libreoffice_help/extract.py --help-dir HELP --target de --output data/raw

HELP is the folder usr/share/libreoffice/help of the unpacked Debian packages. The same page and element id are the same
paragraph in every language. A paragraph is split into sentences if both sides have equally many; pairs that do not look
like translations of each other are dropped. Writes {train,valid,test}.{en,TARGET}, split by a hash of the source
sentence: no source and no target sentence is in two splits.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from lxml import etree, html

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from parallel_text import ExtractError, Pair, acceptable, align, one_target_each, split, write  # noqa: E402

SOURCE_FOLDER = "en-US"
PARAGRAPH_ID = re.compile(r"(par|hd)_id")


def visible_text(element: etree._Element) -> str:
    """Text of a paragraph without markup; of variants per system or application, only the default."""
    parts: list[str] = []

    def collect(node: etree._Element) -> None:
        if not isinstance(node.tag, str) or node.tag in ("script", "style"):
            return  # a comment or code
        parts.append(node.text or "")
        children = list(node)
        if "switchinline" in (node.get("class") or "").split():
            # the variant without a class is the default, the others are for MAC, WRITER, …
            defaults = [child for child in children if not child.get("class")]
            children = (defaults or children)[:1]
        for child in children:
            if child.tag == "br":
                parts.append(" ")
            collect(child)
            parts.append(child.tail or "")

    collect(element)
    return " ".join("".join(parts).replace("\u00ad", "").split())


def paragraphs(page: str) -> dict[str, str]:
    """The paragraphs and headings of a page by element id; ids that occur twice are left out."""
    texts: dict[str, str] = {}
    twice: set[str] = set()
    for element in html.document_fromstring(page).iter("p", "h1", "h2", "h3", "h4", "h5", "h6"):
        name = element.get("id") or ""
        if not PARAGRAPH_ID.match(name):
            continue
        if name in texts:
            twice.add(name)
        texts[name] = visible_text(element)
    return {name: text for name, text in texts.items() if text and name not in twice}


def page_pairs(source_page: str, target_page: str) -> Iterator[Pair]:
    """The acceptable sentence pairs of one page in two languages."""
    source, target = paragraphs(source_page), paragraphs(target_page)
    for name, text in source.items():
        if name in target:
            yield from (pair for pair in align(text, target[name]) if acceptable(*pair))


def all_pairs(help_dir: Path, target: str) -> Iterator[Pair]:
    """The acceptable sentence pairs of all pages, page by page in a fixed order."""
    source_dir, target_dir = help_dir / SOURCE_FOLDER / "text", help_dir / target / "text"
    for folder in (source_dir, target_dir):
        if not folder.is_dir():
            raise ExtractError(f"{folder}: no such folder; it comes with the package libreoffice-help-*")
    for page in sorted(source_dir.rglob("*.html")):
        other = target_dir / page.relative_to(source_dir)
        if other.is_file():
            yield from page_pairs(page.read_text(encoding="utf-8"), other.read_text(encoding="utf-8"))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Extract a parallel corpus from LibreOffice's help pages.")
    parser.add_argument("--help-dir", type=Path, required=True, help="unpacked usr/share/libreoffice/help")
    parser.add_argument("--target", default="de", help="target language: de, fr, … (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for train.en, …")
    parser.add_argument("--valid", type=int, default=1000, help="validation pairs (default: %(default)s)")
    parser.add_argument("--test", type=int, default=1000, help="test pairs (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        pairs = one_target_each(all_pairs(options.help_dir, options.target))
        splits = split(pairs, options.valid, options.test)
    except ExtractError as error:
        sys.exit(f"extract.py: {error}")
    write(options.output, splits, options.target)


if __name__ == "__main__":
    main()
