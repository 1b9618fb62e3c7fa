"""Sentence pairs of the corpora of examples/: sentences, filters, splits and files.

A corpus is a list of ``(source, target)`` pairs. Splits go by a hash of the source sentence: they depend neither
on the order of the pairs nor on the machine.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

Pair = tuple[str, str]

SOURCE = "en"
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
PLACEHOLDER = re.compile(r"%\w+|\$\(\w+\)|\$\[\w+\]|<[^<>]+>|\{\w*\}")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"”“»)]*\s+(?=[\"„“«(]*[A-ZÀ-ÖØ-Þ0-9])")
# Abbreviations that end in a full stop without ending a sentence
ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|approx|resp|No|Fig|z\. ?B|d\. ?h|u\. ?a|o\. ?[äÄ]|i\. ?d\. ?R|bzw|usw|ggf|ca|"
    r"evtl|inkl|Nr|Abb|vgl|sog|max|min|p\. ?ex|cf|env)|(?<![\w+])[A-Za-z]|\d)\.[\"”“»)]*$"
)
WORDS = (3, 80)  # of a sentence
LENGTH_RATIO = 2.5
LETTERS = 0.6  # least share of letters among the characters that are not spaces


class ExtractError(ValueError):
    """Files that yield no corpus, reported in one line."""


def sentences(paragraph: str) -> list[str]:
    """Split a paragraph into sentences, cautiously."""
    parts: list[str] = []
    start = 0
    for end in SENTENCE_END.finditer(paragraph):
        head = paragraph[start : end.start()]
        if ABBREVIATION.search(head):
            continue
        stop = end.start() + len(end[0].rstrip())  # closing quotes belong to the sentence that ends
        parts.append(paragraph[start:stop])
        start = end.end()
    parts.append(paragraph[start:])
    return [part.strip() for part in parts if part.strip()]


def align(source: str, target: str) -> list[Pair]:
    """Sentence pairs of a paragraph, or the paragraph as one pair where the numbers of sentences differ."""
    left, right = sentences(source), sentences(target)
    return list(zip(left, right, strict=True)) if len(left) == len(right) else [(source, target)]


def mostly_letters(text: str) -> bool:
    """Whether the text is prose rather than a formula, a path or code."""
    characters = text.replace(" ", "")
    return sum(character.isalpha() for character in characters) >= LETTERS * len(characters)


def figures(text: str) -> list[str]:
    """The numbers of a text without their separators, which differ between languages."""
    return sorted(re.sub("[.,]", "", number) for number in NUMBER.findall(text))


def fault(source: str, target: str) -> str | None:
    """Why a pair does not look like a sentence and its translation; None if it does."""
    lengths = len(source.split()), len(target.split())
    if min(lengths) < WORDS[0]:
        return f"shorter than {WORDS[0]} words"
    if max(lengths) > WORDS[1]:
        return f"longer than {WORDS[1]} words"
    if max(lengths) >= LENGTH_RATIO * min(lengths):
        return f"length ratio from {LENGTH_RATIO}"
    if source == target:
        return "target is the source"
    if not (mostly_letters(source) and mostly_letters(target)):
        return "mostly other characters than letters"
    if figures(source) != figures(target):
        return "other numbers"
    if Counter(PLACEHOLDER.findall(source)) != Counter(PLACEHOLDER.findall(target)):
        return "other placeholders"
    return None


def acceptable(source: str, target: str) -> bool:
    """Whether a pair looks like a sentence and its translation."""
    return fault(source, target) is None


def one_target_each(pairs: Iterable[Pair]) -> list[Pair]:
    """Return one target per source: the most frequent, or the first of equally frequent ones."""
    targets: dict[str, Counter[str]] = defaultdict(Counter)
    for source, target in pairs:
        targets[source][target] += 1
    return [(source, counts.most_common(1)[0][0]) for source, counts in targets.items()]


def split(pairs: list[Pair], valid: int, test: int, key: Callable[[str], str] = str) -> dict[str, list[Pair]]:
    """Split by a hash of the source; pairs whose target is already in another split are dropped.

    Targets with the same ``key`` count as the same. The sources must differ.
    """
    if len(pairs) <= valid + test:
        raise ExtractError(f"{len(pairs)} sentence pairs are too few for {valid} + {test} held-out pairs")
    ranked = sorted(pairs, key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    splits: dict[str, list[Pair]] = {"train": [], "valid": [], "test": []}
    sizes = {"test": test, "valid": valid}
    owner: dict[str, str] = {}  # of a held-out target
    for pair in ranked:
        target = key(pair[1])
        name = owner.get(target)
        if name is None:
            name = next((name for name, size in sizes.items() if len(splits[name]) < size), "train")
            if name != "train":
                owner[target] = name
        elif len(splits[name]) >= sizes[name]:
            continue
        splits[name].append(pair)
    return splits


def write(folder: Path, splits: dict[str, list[Pair]], target: str) -> None:
    """Write {train,valid,test}.{en,TARGET}; each file appears under its name only once it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in splits.items():
        for side, language in enumerate((SOURCE, target)):
            file = folder / f"{name}.{language}"
            temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
            temporary.write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
            temporary.replace(file)
    print(f"{folder}: " + ", ".join(f"{len(pairs)} {name}" for name, pairs in splits.items()) + " pairs")
