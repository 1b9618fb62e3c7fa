"""The generated corpus: reproducible, disjoint, clean, and equal numbers on both sides."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import cycle

import embedded_corpus
import pytest

from .conftest import EXAMPLES

SIZES = {"train": 600, "valid": 40, "test": 40}


@pytest.fixture(scope="module")
def corpus():
    return embedded_corpus.build(embedded_corpus.Sentences(1).sentence, SIZES, 1)


def test_sizes_and_disjoint_sources(corpus):
    assert {name: len(pairs) for name, pairs in corpus.items()} == SIZES
    sources = [source for pairs in corpus.values() for source, _ in pairs]
    assert len(set(sources)) == len(sources)


def test_same_seed_same_corpus_other_seed_another(corpus):
    def build(seed: int):
        return embedded_corpus.build(embedded_corpus.Sentences(seed).sentence, SIZES, seed)

    assert build(1) == corpus
    assert build(2) != corpus


def test_split_depends_on_the_sentence_alone():
    splits = {embedded_corpus.split_of(f"Sentence {i}.", SIZES, 1) for i in range(500)}
    assert splits == set(SIZES)
    assert embedded_corpus.split_of("A.", SIZES, 1) == embedded_corpus.split_of("A.", SIZES, 1)


def test_text_is_clean(corpus):
    for pairs in corpus.values():
        for pair in pairs:
            for text in pair:
                assert text == " ".join(text.split())  # split() knows U+00A0 and U+202F
                assert text[-1] in ".?" and not text[0].islower()
                assert not re.search(r"[a-z]-[a-z]+-[a-z]+ of| ,|\.\.|None|duration|length-", text)


def numbers(text: str, clock: bool) -> list[str]:
    """Numbers of a text in a form that does not depend on the language, dates and times aside."""
    text = re.sub(r"\d+/\d+/\d+|\d+\.\d+\.\d{4}|\d+:\d+( [AP]M)?", "", text)
    text = re.sub(r"(\d+)(st|nd|rd|th)\b", r"\1", text)
    if clock:  # '.' and ',' have changed their roles
        text = text.translate(str.maketrans(".,", ",."))
    return sorted(number.replace(",", "").rstrip(".") for number in re.findall(r"\d[\d.,]*", text))


def test_both_sides_hold_the_same_numbers(corpus):
    for pairs in corpus.values():
        for english, german in pairs:
            assert numbers(english, False) == numbers(german, True), (english, german)


@pytest.mark.parametrize("ending", ["den", "die", "das"])
def test_ordinals_agree_with_the_article(corpus, ending):
    suffix = "en" if ending == "den" else "e"
    for pairs in corpus.values():
        for _, german in pairs:
            for ordinal in re.findall(rf"\b{ending} (\w+ste[nrsm]?|\w+te[nrsm]?) [A-Z]", german):
                assert ordinal.endswith(suffix), german


def test_impossible_size_is_told_in_one_line():
    pairs = cycle([("One.", "Eins."), ("Two.", "Zwei."), ("Three.", "Drei.")])
    with pytest.raises(embedded_corpus.CorpusError, match="asked for 12 distinct") as error:
        embedded_corpus.build(lambda: next(pairs), {"train": 10, "valid": 1, "test": 1}, 1, patience=50)
    assert "\n" not in str(error.value)


def test_command_line(tmp_path):
    script = EXAMPLES / "tools" / "embedded_corpus.py"
    sizes = ["--train", "30", "--valid", "5", "--test", "5"]
    subprocess.run([sys.executable, script, "--output", tmp_path / "a", *sizes], check=True)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert files == ["test.de", "test.en", "train.de", "train.en", "valid.de", "valid.en"]
    assert len((tmp_path / "a" / "train.de").read_text(encoding="utf-8").splitlines()) == 30

    bad = subprocess.run(
        [sys.executable, script, "--output", tmp_path / "b", "--valid", "0"], capture_output=True, text=True
    )
    assert bad.returncode == 1
    assert bad.stderr.strip() == "embedded_corpus.py: --valid 0: each split needs at least 1 sentence pair"
