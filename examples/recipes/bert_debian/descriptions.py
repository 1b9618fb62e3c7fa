"""Text, sections and pairs from Debian's package index: text for a masked language model, and two tasks.

    python examples/recipes/bert_debian/descriptions.py --index LISTS --output data/text

LISTS has Packages and Translation-en as apt keeps them. A source package, with all its binary packages, is in one
split, by a hash of its name. A paragraph shared by descriptions of two sources is left out. So no split repeats
another, and a package added by a Debian update moves no other.

``text/{train,valid,test}.text``: a description a line. ``section/`` and ``pair/``: ``input0``, for pairs ``input1``,
and ``label``, a line an example, in an order by hash: the first N are a random part.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "valid", "test")
SMALLEST_SECTION = 200  # examples, or it is left out


@dataclass(frozen=True)
class Package:
    """A binary package: its source, its section, its description's first line, and the paragraphs below."""

    name: str
    source: str
    section: str
    synopsis: str
    paragraphs: tuple[str, ...]


def stanzas(path: Path) -> Iterator[dict[str, str]]:
    """Fields of each stanza of a control file; lines that go on a field follow after line ends."""
    fields: dict[str, str] = {}
    name = ""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if not line:
                if fields:
                    yield fields
                fields = {}
            elif line[0] == " ":
                fields[name] += "\n" + line[1:]
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
    if fields:
        yield fields


def paragraphs(lines: Sequence[str]) -> tuple[str, ...]:
    """Of a description without its first line, each on one line; " ." ends one."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == ".":
            found.append([])
        else:
            found[-1] += line.split()
    return tuple(" ".join(words) for words in found if words)


def read_packages(index: Path) -> list[Package]:
    """All packages that have a description, in the order of their names."""
    descriptions = {stanza["Description-md5"]: stanza["Description-en"] for stanza in stanzas(index / "Translation-en")}
    found = {}
    for stanza in stanzas(index / "Packages"):
        name = stanza["Package"]
        synopsis, *rest = descriptions.get(stanza.get("Description-md5", ""), "").split("\n")
        if synopsis:
            source = stanza.get("Source", name).split()[0]  # "name (version)" where versions differ
            found[name] = Package(name, source, stanza["Section"], synopsis, paragraphs(rest))
    return without_shared([found[name] for name in sorted(found)])


def without_shared(packages: list[Package]) -> list[Package]:
    """The same without paragraphs that more than one source has."""
    sources = defaultdict(set)
    for package in packages:
        for text in package.paragraphs:
            sources[text].add(package.source)
    return [
        Package(p.name, p.source, p.section, p.synopsis, tuple(t for t in p.paragraphs if len(sources[t]) == 1))
        for p in packages
    ]


def hashed(text: str) -> int:
    """Return a hash of ``text`` as a number, the same on any machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_of(source: str) -> str:
    """A tenth each is valid and test."""
    return {0: "valid", 1: "test"}.get(hashed(f"split {source}") % 10, "train")


def one_of_each_source(packages: list[Package]) -> list[Package]:
    """Of each source one package that has paragraphs, whichever comes first by hash; in an order by hash."""
    found: dict[str, Package] = {}
    for package in sorted((p for p in packages if p.paragraphs), key=lambda p: hashed(f"choice {p.name}")):
        found.setdefault(package.source, package)
    return sorted(found.values(), key=lambda p: hashed(f"order {p.source}"))


def sentence(text: str) -> str:
    """``text`` with a point at its end, if nothing of that kind is there."""
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."


def texts(packages: list[Package]) -> Iterator[tuple[str, list[str]]]:
    """(split, columns): all descriptions, a paragraph in the first that has it only."""
    seen: set[str] = set()
    for package in packages:
        fresh = [text for text in (sentence(package.synopsis), *package.paragraphs) if text not in seen]
        seen.update(fresh)
        if fresh:
            yield split_of(package.source), [" ".join(fresh)]


def sections(chosen: list[Package]) -> Iterator[tuple[str, list[str]]]:
    """(split, columns): a description and its package's section; sections with enough examples."""
    counts = Counter(package.section for package in chosen)
    for package in chosen:
        if counts[package.section] >= SMALLEST_SECTION:
            text = " ".join((sentence(package.synopsis), *package.paragraphs))
            yield split_of(package.source), [text, package.section]


def pairs(chosen: list[Package]) -> Iterator[tuple[str, list[str]]]:
    """Yield (split, columns): a first line and a first paragraph; for half of the packages, the paragraph comes from
    another package of the same section and split."""
    others = {}
    groups: dict[tuple[str, str], list[Package]] = defaultdict(list)
    for package in chosen:
        if hashed(f"pair {package.source}") % 2:
            groups[split_of(package.source), package.section].append(package)
    for group in groups.values():
        if len(group) > 1:
            others |= {mine.name: theirs for mine, theirs in zip(group, [*group[1:], group[0]], strict=True)}
    for package in chosen:
        other = others.get(package.name)
        label = "same" if other is None else "other"
        yield split_of(package.source), [package.synopsis, (other or package).paragraphs[0], label]


def write(folder: Path, columns: Sequence[str], rows: Iterator[tuple[str, list[str]]]) -> dict[str, int]:
    """One file for each split and column; how many lines each split has."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    for split, row in rows:
        found[split].append(row)
    for split, lines in found.items():
        for position, column in enumerate(columns):
            text = "".join(f"{row[position]}\n" for row in lines)
            (folder / f"{split}.{column}").write_text(text, encoding="utf-8")
    return {split: len(lines) for split, lines in found.items()}


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True, type=Path, help="folder of Packages and Translation-en")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args(argv)
    packages = read_packages(args.index)
    chosen = one_of_each_source(packages)
    counts = {
        "text": write(args.output / "text", ["text"], texts(packages)),
        "section": write(args.output / "section", ["input0", "label"], sections(chosen)),
        "pair": write(args.output / "pair", ["input0", "input1", "label"], pairs(chosen)),
    }
    (args.output / "counts.json").write_text(json.dumps(counts, indent=1) + "\n")
    for name, found in counts.items():
        print(name, *(f"{split} {count:,}" for split, count in found.items()))


if __name__ == "__main__":
    main()
