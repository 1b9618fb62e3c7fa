#!/usr/bin/env python3
"""Extract a parallel corpus from gettext catalogues.

    python examples/recipes/debian_catalogues/extract.py --catalogues FOLDER --target de --output data/raw

FOLDER has one folder per package with its catalogues (*.mo) of the target language anywhere below. messages.py extracts
text from the messages. Pairs that do not look like a sentence and its translation are dropped, and so are repeated
ones. Writes {train,valid,test}.{en,TARGET}, split by a hash of the source sentence: no source and no target sentence is
in two splits, even ignoring case and punctuation. Prints the number of pairs that each filter drops.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
import parallel_text  # noqa: E402
from messages import CatalogueError, read, text_pairs  # noqa: E402
from parallel_text import SOURCE, ExtractError, Pair, one_target_each, split, write  # noqa: E402

PLACEHOLDER = re.compile(
    r"%\([\w ]+\)[a-z]|%\{\w+\}|%[-+#0]*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh?|ll?|[qjztLw])?[a-zA-Z]|%L?\d+"
    r"|\$\{[^{}]*\}|\$\w+|\{[^{}\s]*\}|@\w+@|<[^<>]+>|(?<![\w-])--[a-z][\w-]*|https?://\S+"
)
WORD = re.compile(r"[^\W\d_]+")
UNDERSCORED = re.compile(r"\w*_\w*")
# Patterns that prose does not contain: tags, escapes, columns, and characters without meaning
MARKUP = re.compile(
    r"</|/>|<\w+ |\\[nt\"]|\S {3,}\S|\. \. |\t|[{}]{2}|[\x00-\x08\x0b-\x1f\ue000-\uf8ff\ufffd]|&\w+;|\[/|::\w"
)
LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
CREDITS = re.compile(
    r"translator[-_ ]credits|(?:NAME|EMAIL|ROLES) OF TRANSLATORS|©|\(c\) |copyright (?:\d|%|by)", re.IGNORECASE
)
# Words that mark a language and no other of this table
FUNCTION_WORDS = {
    "en": "the of and to is this for with that not be are from you your can or on it have has if no by as at which",
    "de": "der das und ist nicht ein eine einen einer eines zu den dem mit von für auf wird werden kann können des "
    "sie oder im als auch bei aus nach zum zur dieser diese dieses keine kein wenn ihre ihr durch über",
    "fr": "le la les des de du et est un une pour dans sur ne pas que qui avec vous votre ce cette au aux par en il "
    "plus être sont ou si son sa ses aucun aucune lors",
}
MARKS = {language: frozenset(words.split()) for language, words in FUNCTION_WORDS.items()}
COPIED = 0.6  # share of the source's words in the target from which on it is no translation

MISMATCHES = ("other numbers", "other placeholders", "other underscores")  # sentences in another order, for one


def is_of(path: Path, target: str) -> bool:
    """Return whether a catalogue below a package's folder is in the target language, in any layout."""
    names = (target, f"{target}_{target.upper()}")
    if path.parent.name.startswith("LC_"):
        return path.parent.name == "LC_MESSAGES" and path.parent.parent.name in names
    return path.stem.rpartition("-")[2] in names or path.parent.name in names


def fault(source: str, target: str, language: str) -> str | None:
    """Why a pair does not look like a sentence and its translation; None if it does."""
    general = parallel_text.fault(source, target)
    if general is not None:
        return general
    both = (source, target)
    if any(CREDITS.search(text) for text in both):
        return "credits and copyright"
    if any(MARKUP.search(text) for text in both):
        return "markup, escapes, columns"
    if Counter(UNDERSCORED.findall(source)) != Counter(UNDERSCORED.findall(target)):
        return "other underscores"
    if Counter(PLACEHOLDER.findall(source)) != Counter(PLACEHOLDER.findall(target)):
        return "other placeholders"
    words, others = (WORD.findall(PLACEHOLDER.sub(" ", text).casefold()) for text in both)
    if sum(len(word) > 1 for word in words) < parallel_text.WORDS[0] or sum(len(word) > 1 for word in others) < 2:
        return "mostly placeholders"
    if any(len(LATIN.findall(text)) < 0.9 * len(text) for text in ("".join(words), "".join(others))):
        return "another script"
    own = MARKS.get(language, frozenset())
    if sum(word in own for word in words) > sum(word in MARKS[SOURCE] for word in words):
        return "source in the target language"
    if sum(word in MARKS[SOURCE] for word in others) > sum(word in own for word in others):
        return "target in English"
    if sum(word in others for word in words) >= COPIED * len(words):
        return "target copies the source"
    return None


def one_spaced(text: str) -> str:
    """A sentence with one space, an ordinary one, between words."""
    return " ".join(text.split())


def key(text: str) -> str:
    """Return a sentence without case, punctuation and spaces, for comparison."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def all_pairs(folder: Path, target: str, counts: Counter[str]) -> Iterator[Pair]:
    """Return the good sentence pairs of all catalogues in a fixed order; count the dropped ones."""
    files = [file for file in sorted(folder.rglob("*.mo")) if is_of(file.relative_to(folder), target)]
    if not files:
        raise ExtractError(f"{folder}: no catalogues for {target}")
    counts["catalogues"] = len(files)
    for file in files:
        for original, translation in read(file):
            counts["messages"] += 1
            if len(original.split()) < parallel_text.WORDS[0]:  # half of all: not worth a closer look
                counts["- messages shorter than 3 words"] += 1
                continue
            pairs = text_pairs(original, translation)
            reasons = [fault(*pair, target) for pair in pairs]
            counts["sentence pairs"] += len(pairs)
            astray = any(reason in MISMATCHES for reason in reasons)
            for pair, reason in zip(pairs, reasons, strict=True):
                if reason is None and not astray:
                    yield one_spaced(pair[0]), one_spaced(pair[1])
                else:
                    counts[f"- {reason or 'beside one that does not match'}"] += 1


def distinct(pairs: list[Pair]) -> list[Pair]:
    """Return the first pair of each group with equal sources."""
    firsts: dict[str, Pair] = {}
    for pair in pairs:
        firsts.setdefault(key(pair[0]), pair)
    return list(firsts.values())


def report(counts: Counter[str], pairs: list[Pair]) -> None:
    """Print the filters' counts and the lengths of the sources."""
    for name in sorted(counts, key=lambda name: (name.startswith("-"), -counts[name], name)):
        print(f"{counts[name]:9,}  {name}")
    lengths = sorted(len(source.split()) for source, _ in pairs)
    bounds = [3, 4, 6, 9, 13, 21, parallel_text.WORDS[1] + 1]
    for low, high in zip(bounds, bounds[1:], strict=False):
        print(f"{sum(low <= length < high for length in lengths):9,}  of {low} to {high - 1} words")
    print(f"{len(pairs):9,}  pairs, {sum(lengths) / len(lengths):.1f} words on average")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Extract a parallel corpus from gettext catalogues.")
    parser.add_argument("--catalogues", type=Path, required=True, help="one folder of *.mo per package")
    parser.add_argument("--target", default="de", help="target language: de, fr, … (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for train.en, …")
    parser.add_argument("--valid", type=int, default=2000, help="validation pairs (default: %(default)s)")
    parser.add_argument("--test", type=int, default=2000, help="test pairs (default: %(default)s)")
    options = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    try:
        found = list(all_pairs(options.catalogues, options.target, counts))
        single = one_target_each(found)
        pairs = distinct(single)
        counts["- repeated"] = len(found) - len(pairs)
        splits = split(pairs, options.valid, options.test, key)
    except (ExtractError, CatalogueError) as error:
        sys.exit(f"extract.py: {error}")
    counts["- target in another split"] = len(pairs) - sum(map(len, splits.values()))
    report(counts, [pair for part in splits.values() for pair in part])
    write(options.output, splits, options.target)


if __name__ == "__main__":
    main()
