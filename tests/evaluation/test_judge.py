"""Raw references: their lines are fairseq's, and an empty file is no missing one."""

from types import SimpleNamespace

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import EvaluationOptions
from mos_fairseq.evaluation.judge import Judge
from mos_fairseq.gap.measure import Experiment

BINARISED = ["x y", "z"]


def evaluator(*args: object) -> SimpleNamespace:
    """Of two sentences, which "scores" by the references it was given."""
    found = SimpleNamespace(references=lambda: BINARISED, score=lambda _, references: references, signature="")
    found.set_fingerprint = lambda: "set"
    return found


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_end_where_fairseqs_do(tmp_path, end):
    """Other characters at which str.splitlines ends a line stay within it; a last line needs no newline."""
    lines = [f"a{character}b" for character in "\u2028\u0085\x0c\x1c"] + ["", "c", ""]
    path = tmp_path / "test.yy"
    path.write_bytes("".join(line + end for line in lines).encode())
    assert Judge("data", EvaluationOptions("bleu"), reference=path).reference_lines() == lines
    path.write_text("a")
    assert Judge("data", EvaluationOptions("bleu"), reference=path).reference_lines() == ["a"]


def test_an_empty_reference_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "test.yy"
    path.touch()
    monkeypatch.setattr(Experiment, "_evaluator", evaluator)
    for reference, message in ((path, "test.yy: 0 lines for 2 sentences"), (None, None)):
        judge = Judge("data", EvaluationOptions("bleu"), reference=reference)
        experiment = Experiment({"supernet": "a.pt"}, [], judge, tmp_path, tmp_path)
        if message is None:
            assert judge.references(evaluator()) == experiment._set[1] == BINARISED
            continue
        with pytest.raises(InputError, match=message):
            judge.scores(tmp_path / "scores.json", evaluator)  # before it translates, which this one cannot
        with pytest.raises(InputError, match=message):
            _ = experiment._set
