"""The closing table of mos-search, of made-up results."""

from __future__ import annotations

import pytest

from mos_fairseq.cli.search_table import beaten, budget_lines, closing_rows, table
from mos_fairseq.search_space import SearchSpace

TINY = SearchSpace.from_spec("tiny")


def row(number: int, loss: float, latency_ms: float, **more: float) -> dict:
    architecture = TINY.sample_subnet("table", number).to_dict()
    return {"loss": loss, "latency_ms": latency_ms, "params": 1000 * number, "architecture": architecture} | more


@pytest.fixture
def results():
    front = [row(number, 5 - number / 10, 10 * number) for number in range(1, 10)]
    compared = {"smallest": row(20, 4.9, 8), "largest": row(21, 4.0, 100), "uniform": row(22, 4.75, 29.5)}
    return {
        "best": row(3, 4.7, 28.0),
        "algorithm_best": row(3, 4.7, 28.0),
        "front": front,
        "compared": compared,
        "budgets": {"latency_ms": 30.0},
        "objective": "loss",
        "cost": "latency_ms",
    }


def test_rows_and_costs(results):
    names = ["front 1", "front 2", "front 3", "front 4", "front 5", "smallest", "uniform", "best", "largest"]
    assert [*closing_rows(results)] == names
    lines = [line.replace("front ", "front").split() for line in table(results, 1.5).splitlines()]
    assert lines[0] == ["subnet", "loss", "latency_ms", "params"]
    assert lines[1] == ["front1", "4.9000", "10±0.15", "1000"] and lines[-2][:3] == ["best", "4.7000", "28±0.42"]
    assert [line[2] for line in lines[1:6]] == ["10±0.15", "30±0.45", "50±0.75", "70±1.1", "90±1.4"]
    assert "±" not in table(results, None)


def test_bleu(results):
    for found in closing_rows(results).values():
        found |= {"bleu": 31.25, "bleu_ci": 1.26, "p_value": 0.0412}
    del results["best"]["p_value"]
    lines = [line.replace("front ", "front").split() for line in table(results, None).splitlines()]
    assert lines[0][:4] == ["subnet", "loss", "bleu", "p"]
    assert lines[1][2:4] == ["31.2±1.3", "0.041"] and lines[-2][2:4] == ["31.2±1.3", "-"]
    results["objective"] = "bleu"
    lines = [line.replace("front ", "front").split() for line in table(results, None).splitlines()]
    assert lines[0][:4] == ["subnet", "bleu", "p", "latency_ms"] and lines[1][1:3] == ["31.2±1.3", "0.041"]


def test_what_budgets_do(results):
    assert budget_lines(results) == ["budget: latency_ms<=30, of which the best takes 93 %"]
    results["compared"]["beyond"] = row(30, 4.65, 33)
    (line,) = budget_lines(results)
    assert line.endswith("takes 93 %; with 110 %: loss 4.6500")
    results["budgets"]["params"] = 30_000.0
    assert [line.count("; with ") for line in budget_lines(results)] == [1, 0]  # it needs no more parameters
    del results["budgets"]["params"]
    results["compared"]["beyond"]["loss"] = 4.7
    (line,) = budget_lines(results)
    assert line.endswith("; with 110 %: no better")
    assert beaten(results) is None  # the largest is better, and misses the budget
    results["compared"]["uniform"]["loss"] = 4.7
    assert beaten(results).startswith("the uniform subnet, which needs no search, is as good as the best, and the")
    better = results["best"] = results["compared"]["uniform"] = row(22, 4.6, 29.5)
    assert beaten(results).startswith(
        "the uniform subnet, which needs no search, is the best, and the search alone found"
    )
    assert "found loss 4.7000: a longer search may find more" in beaten(results)
    results["algorithm_best"] = better
    assert beaten(results) == "the best that was found is the uniform subnet, which needs no search"
    del results["compared"]["uniform"], results["compared"]["beyond"]
    results["budgets"] = {}
    assert beaten(results) is None  # that the largest is better goes without saying
