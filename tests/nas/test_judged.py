"""Judged subnets are kept, also where a later one of the same read is not finite."""

from types import SimpleNamespace

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.nas.judged import JudgedSubnets
from tests.helpers import small_space

SUBNETS = [small_space().sample_subnet("judged", number) for number in range(8)]


class Evaluator:
    """Judges by number, four at once; ``bad`` is not finite."""

    at_once = 4
    options = SimpleNamespace(objective="loss")

    def __init__(self, bad=None):
        self.bad, self.asked = bad, []

    def evaluate_all(self, subnets):
        self.asked.append([SUBNETS.index(subnet) for subnet in subnets])
        for subnet in subnets:
            if SUBNETS.index(subnet) == self.bad:
                raise InputError("its loss is nan")
            yield SUBNETS.index(subnet) / 8


def test_parts_of_the_requested_are_judged_at_once(tmp_path):
    with JudgedSubnets(tmp_path / "judged.jsonl", Evaluator()) as judged:
        judged.evaluate(SUBNETS[2:4])
    evaluator = Evaluator()
    with JudgedSubnets(tmp_path / "judged.jsonl", evaluator) as judged:
        assert judged.evaluate(SUBNETS) == [number / 8 for number in range(8)]
    assert evaluator.asked == [[0, 1, 4, 5], [6, 7]]


def test_what_comes_before_a_bad_one_is_kept(tmp_path):
    path = tmp_path / "judged.jsonl"
    with JudgedSubnets(path, Evaluator(bad=6)) as judged, pytest.raises(InputError, match="its loss is nan"):
        judged.evaluate(SUBNETS)
    assert len(path.read_text().splitlines()) == 6
