"""Messages of compiled gettext catalogues (*.mo) as plain text.

The format: https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html. Messages contain parts for programs:
a context, the plural, markup, the mnemonic of a menu, line breaks of a terminal. These are removed, and the text that a
user reads remains; placeholders such as ``%s`` stay.
"""

from __future__ import annotations

import html
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from parallel_text import Pair, align

ARGUMENT = re.compile(r"^\|[^|\n]*\|")  # GnuPG: "|FILE|read it"
# Inside a message: "gender^The text" or "menu|The text", where only the original has the prefix
PREFIX = re.compile(r"^[^|^\n]{1,60}[|^](?=\S)")
BLOCK_TAG = re.compile(r"</?(?:p|br|nl|li|ul|ol|dl|dt|dd|table|tr|td|th|h[1-6]|div|para|title|list|item|note|warning|"
                       r"header|hr|center|pre|subtitle|bcode)(?:\s[^<>]*)?/?>", re.IGNORECASE)  # fmt: skip
INLINE_TAG = re.compile(r"</?(?:a|b|i|u|s|em|strong|tt|code|small|big|sub|sup|span|font|qt|rt|html|head|body|img|kbd|"
                        r"var|samp|dfn|cite|q|nobr|abbr|label|filename|interface|application|command|emphasis|email|"
                        r"envar|icode|link|message|numid|placeholder|resource|shortcut|bold|italic|ref|text|format|"
                        r"dst|quote|acronym|guilabel|guimenu|menuchoice|keycap|keycombo|tag|literal|large|color|"
                        r"style|meta|blockquote|del|ins|mark|section|strike)"
                        r"(?:[\s=][^<>]*)?/?>", re.IGNORECASE)  # fmt: skip
SHORTCUT = re.compile(r"\t(?:[A-Z]\w*|(?:\w+\+)+\S+)$")  # wxWidgets: "Open\tCtrl+O"
AMPERSAND = re.compile(r"&(?!#?\w{2,8};)(?=\w)")  # KDE, Qt, wxWidgets: "&File"
TILDE = re.compile(r"~(?=[^\W\d])")  # LibreOffice: "~File"
UNDERSCORED = re.compile(r"\S*_\S*")
POSITION = re.compile(r"%\d+\$")
QUOTED = re.compile(r"`([^`'\n]*)'")
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
BULLET = re.compile(r"\s*(?:(?:[-*•·]|#+) +|\d+[.)] +)(?=\S)")
OPTIONS = re.compile(
    r"\s*-{1,2}\w[^\s,]*(?:(?:, ?| )-{1,2}\w[^\s,]*)*(?: [A-ZÄÖÜ<\[]\S*)?(?:\s{2,}|\t|$)"
)  # of a usage message: "  -f, --file NAME   description"
WRAPPED = 50  # characters from which a line break is one of the terminal's, not the text's


class CatalogueError(ValueError):
    """A file that is no catalogue, reported in one line."""


def read(file: Path) -> Iterator[Pair]:
    """The translated messages of a catalogue without their contexts: the original and its translation.

    Of a message with a plural, the plural: that form holds the placeholder of the number. Languages with more than
    two forms give the singular instead. Messages that are not valid in the catalogue's encoding are left out.
    """
    data = file.read_bytes()
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(data[:4])
    if order is None:
        raise CatalogueError(f"{file}: no compiled gettext catalogue")
    try:
        _, count, originals, translations = struct.unpack_from(order + "4I", data, 4)
        entries = []
        for index in range(count):
            strings = []
            for table in (originals, translations):
                length, offset = struct.unpack_from(order + "2I", data, table + 8 * index)
                strings.append(data[offset : offset + length])
            entries.append(strings)
    except struct.error as error:
        raise CatalogueError(f"{file}: truncated") from error
    header = next((translation for original, translation in entries if not original), b"")
    charset = re.search(rb"charset=([\w.:-]+)", header)
    encoding = charset[1].decode("ascii") if charset else "utf-8"
    for original, translation in entries:
        if not original:
            continue
        try:
            forms = original.decode(encoding).rpartition("\4")[2].split("\0")
            translated = translation.decode(encoding).split("\0")
        except (UnicodeDecodeError, LookupError):
            continue
        yield (forms[-1], translated[-1]) if len(translated) <= 2 else (forms[0], translated[0])


def without_mnemonics(source: str, target: str) -> Pair:
    """Drop the mark of a menu entry's or a button's key: ``&File``, ``_File``, ``~File``."""
    names = {word for word in UNDERSCORED.findall(source) if word[0] != "_"} & set(UNDERSCORED.findall(target))
    sides = []
    for text in (source, target):
        text = AMPERSAND.sub("", text).replace("&&", "&")
        if text.count("~") == 1:
            text = TILDE.sub("", text)
        marked = [word for word in UNDERSCORED.findall(text) if word not in names]  # max_size is no mnemonic
        if len(marked) == 1 and marked[0].count("_") == 1:
            text = text.replace(marked[0], marked[0].replace("_", ""))
        sides.append(text)
    return sides[0], sides[1]


def plain(text: str) -> str:
    """Text of one paragraph or line: entities resolved, one kind of space, quote and ellipsis, no positions."""
    text = html.unescape(text)
    text = POSITION.sub("%", text).replace("%%", "%")
    for spelled, character in (("%<", "'"), ("%>", "'"), ("%'", "'"), ("…", "..."), ("``", '"'), ("''", '"')):
        text = text.replace(spelled, character)  # the first three are gcc's
    return INVISIBLE.sub("", QUOTED.sub(r"'\1'", text)).strip()


def blocks(paragraph: str) -> list[str]:
    """Split a paragraph at its own line breaks: list items, and lines too short to be wrapped.

    Wrapped lines are joined. Bullets and the option names of a usage message are dropped.
    """
    parts: list[list[str]] = []
    previous = 0
    for line in paragraph.split("\n"):
        if not line.strip():
            continue
        head = OPTIONS.match(line) or BULLET.match(line)
        if head:
            line = line[head.end() :]
        if head or previous < WRAPPED and not (parts and line[:3].isspace()):  # the indented ones go on
            parts.append([])
        parts[-1].append(line.strip())
        previous = len(line)
    return [" ".join(part) for part in parts if any(part)]


def text_pairs(source: str, target: str) -> list[Pair]:
    """The sentence pairs of a message and its translation, as plain text."""
    source, target = (ARGUMENT.sub("", text) for text in (source, target))
    prefix = PREFIX.match(source)
    if prefix and prefix[0][-1] not in target:
        source = source[prefix.end() :]
    source, target = (
        INLINE_TAG.sub("", BLOCK_TAG.sub("\n\n", SHORTCUT.sub("", text.replace("\r", "")))) for text in (source, target)
    )
    source, target = without_mnemonics(source, target)
    left, right = ([plain(part) for part in re.split(r"\n\s*\n", text) if part.strip()] for text in (source, target))
    if len(left) != len(right):
        left, right = ["\n".join(left)], ["\n".join(right)]
    pairs: list[Pair] = []
    for paragraph, translation in zip(left, right, strict=True):
        lines, others = blocks(paragraph), blocks(translation)
        if len(lines) != len(others):
            lines, others = [" ".join(lines)], [" ".join(others)]
        for line, other in zip(lines, others, strict=True):
            pairs += align(line, other)
    return pairs
