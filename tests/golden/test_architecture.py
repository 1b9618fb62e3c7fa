"""Keys, order, drawing, encodings, genes, costs, features and weights' names equal those of commit f468d68."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden import facts

GOLDEN = json.loads(Path(__file__).with_name("architecture.json").read_text(encoding="utf-8"))


def plain(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", facts.SPACES)
def test_a_search_space_means_what_it_meant(name):
    found, golden = plain(facts.space_facts(facts.SPACES[name])), GOLDEN["spaces"][name]
    for mine, theirs in zip(found.pop("subnets"), golden.pop("subnets"), strict=True):
        assert mine == theirs
    assert found == golden


@pytest.mark.parametrize("options", facts.SUPERNETS, ids=lambda o: "-".join(map(str, o.values())))
def test_weights_have_the_names_and_shapes_that_they_had(options):
    golden = next(known for known in GOLDEN["supernets"] if known["options"] == options)
    found = plain(facts.supernet_facts(options))
    assert found == golden
    for part in ("parameters", "twin"):
        assert list(found[part]) == list(golden[part])  # the order too: an optimizer's state is stored by it
