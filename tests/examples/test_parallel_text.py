"""Shared parts of the corpora of examples/: sentences, filters and splits."""

from __future__ import annotations

import parallel_text
import pytest


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One two. Three four? Five!", ["One two.", "Three four?", "Five!"]),
        ("Siehe z. B. Abb. 3. Danach weiter.", ["Siehe z. B. Abb. 3. Danach weiter."]),
        ('Click "Save." Then close it.', ['Click "Save."', "Then close it."]),
        ("Version 7.4 is new. No. 5 follows.", ["Version 7.4 is new.", "No. 5 follows."]),
    ],
)
def test_sentences(text, parts):
    assert parallel_text.sentences(text) == parts


def test_numbers_are_compared_without_separators():
    assert parallel_text.acceptable("It costs 1,234.50 euros today.", "Es kostet heute 1.234,50 Euro.")
    assert not parallel_text.acceptable("It costs 12 euros today.", "Es kostet heute 13 Euro.")
    assert not parallel_text.acceptable("Open the %PRODUCTNAME folder now.", "Öffnen Sie jetzt den Ordner.")


def test_most_frequent_target_wins():
    pairs = [("a", "x"), ("a", "y"), ("b", "z"), ("a", "y")]
    assert parallel_text.one_target_each(pairs) == [("a", "y"), ("b", "z")]


def test_splits_share_no_sentence():
    pairs = [(f"source {i}", f"target {i // 3}") for i in range(300)]
    splits = parallel_text.split(pairs, valid=20, test=20)
    assert len(splits["valid"]) == len(splits["test"]) == 20
    for side in (0, 1):
        sides = [{pair[side] for pair in part} for part in splits.values()]
        assert sum(len(part) for part in sides) == len(set().union(*sides))
    assert parallel_text.split(list(reversed(pairs)), 20, 20)["test"] == splits["test"]
    with pytest.raises(parallel_text.ExtractError, match="too few"):
        parallel_text.split(pairs, valid=200, test=100)
