"""Options of mos-search, read in this process: what each algorithm and score takes, and what is refused early."""

from types import SimpleNamespace

import pytest

from mos_fairseq.cli import search
from mos_fairseq.cli.search_options import algorithm_options, evaluation_options, get_parser, report_options
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation import scoring
from mos_fairseq.evaluation.options import EvaluationOptions
from mos_fairseq.search_space import SearchSpace


def parsed(*words: object):
    return get_parser().parse_args(["data", "--path", "a.pt", "--output", "out", *map(str, words)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["random", "--population-size", 9],
            "population_size is 9: it has no effect with algorithm random, only with ",
        ),
        (["random", "--iterations", 3], "iterations is 3: it has no effect with algorithm random, only with evolution"),
        (["nsga2", "--parents", 9], "parents is 9: it has no effect with algorithm nsga2, only with evolution"),
        (["evolution", "--num-subnets", 9], "num_subnets is 9: it has no effect with algorithm evolution, only with r"),
        (["nsga2", "--iterations", 1], "iterations is 1: allowed are whole numbers from 2 up"),
    ],
)
def test_what_an_algorithm_does_not_take_is_refused(words, message):
    with pytest.raises(InputError, match=f"^{message}"):
        algorithm_options(parsed("--algorithm", *words), ("flops",))


def test_the_tokenizer_is_that_of_bleu():
    """Where the search is by chrF, it is that of the reported BLEU."""
    words = ["--report-bleu", "--sacrebleu-tokenizer", "zh"]
    for objective in ("chrf", "loss"):
        args = parsed("--objective", objective, *words)
        assert evaluation_options(args) == EvaluationOptions(objective)
        assert report_options(args).sacrebleu_tokenizer == "zh"
    assert evaluation_options(parsed("--objective", "bleu", *words)).sacrebleu_tokenizer == "zh"
    for objective in ("chrf", "loss"):
        with pytest.raises(InputError, match="sacrebleu_tokenizer is zh: it belongs to bleu"):
            evaluation_options(parsed("--objective", objective, *words[1:]))


def test_a_report_that_cannot_be_made_is_refused_before_the_search(monkeypatch, tmp_path):
    def missing(**options: object):
        raise RuntimeError("Please install mecab")

    def judge(rank: int):
        raise AssertionError("it is judged")

    words = ["--predictor", "p.json", "--measure-front"]
    for path, reason in ((tmp_path / "absent" / "a.jsonl", "No such file or directory"), (tmp_path, "it names a fold")):
        with pytest.raises(InputError, match=rf"^measure_front {path}: cannot be written \({reason}"):
            search._run(parsed(*words, path))
    monkeypatch.setattr(search, "_space_and_seeds", lambda args: (SearchSpace.from_spec("tiny_lm"), []))
    request = SimpleNamespace(args=None, translated=EvaluationOptions("bleu"))
    with pytest.raises(InputError, match="^report_bleu: models of family decoder_only are judged by loss"):
        search._run_search(request, judge)
    monkeypatch.setattr(scoring, "BLEU", missing)
    with pytest.raises(InputError, match="sacrebleu_tokenizer is ja-mecab: sacreBLEU cannot use it here"):
        report_options(parsed("--report-bleu", "--sacrebleu-tokenizer", "ja-mecab"))
