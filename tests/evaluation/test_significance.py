"""The paired bootstrap separates chance from difference, and its table reports both."""

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.significance import paired_bootstrap
from mos_fairseq.gap import Row, read_table
from mos_fairseq.gap.report import difference_table

REFERENCES = [f"the {i} small words of sentence {i * 7} are here" for i in range(60)]
GOOD = [line if i % 5 else "something else" for i, line in enumerate(REFERENCES)]
OTHER = [line if i % 5 != 1 else "something else" for i, line in enumerate(REFERENCES)]
BAD = [line if i % 2 else "something else" for i, line in enumerate(REFERENCES)]


def test_chance_and_difference():
    found = paired_bootstrap({"good": GOOD, "other": OTHER, "bad": BAD}, REFERENCES, 300)
    assert list(found) == ["good", "other", "bad"] and list(found["good"]) == ["bleu_ci"]
    assert found["other"]["compared_with"] == "good"
    assert found["other"]["p_value"] > 0.3 and found["bad"]["p_value"] < 0.01
    assert all(0 < values["bleu_ci"] < 30 for values in found.values())
    assert paired_bootstrap({"good": GOOD, "bad": BAD}, REFERENCES, 300)["bad"] == found["bad"]  # same seed, same draws


def test_other_metrics_and_tokenizers():
    """The requested systems are compared, and recorded under their names."""
    systems = {"good": GOOD, "near": [line.replace("e", "ee") for line in GOOD]}
    for options, name in ((("chrf",), "chrf_ci"), (("bleu", "char"), "bleu_ci")):
        found = paired_bootstrap(systems, REFERENCES, 100, *options)
        assert list(found["near"]) == [name, "compared_with", "p_value"]
        assert found != paired_bootstrap(systems, REFERENCES, 100)


def test_equal_systems_differ_by_chance():
    nothing = ["nothing alike"] * len(REFERENCES)
    assert paired_bootstrap({"a": GOOD, "b": list(GOOD)}, REFERENCES, 100)["b"]["p_value"] == 1
    assert paired_bootstrap({"a": nothing, "b": nothing}, REFERENCES, 100)["b"]["p_value"] == 1


def test_table():
    def row(subnet, supernet, score, **details):
        return Row(subnet, score, 30.0, supernet, "bleu", details=details)

    more = {"bleu_ci": 1.0, "compared_with": "none"}
    rows = [
        row("largest", "none", 20.0, bleu_ci=1.0),
        row("largest", "neuron", 21.5, **more, p_value=0.012),
        row("smallest", "none", 12.0, bleu_ci=1.0),
        row("smallest", "neuron", 11.75, **more, p_value=0.4),
        row("smallest", "alpha", 10.0, bleu_ci=1.0, compared_with="neuron", p_value=0.01),
    ]
    assert difference_table(rows) == [
        ["BLEU less another's (p)", "neuron - none", "alpha - neuron"],
        ["largest", "+1.50 (0.012)", "-"],
        ["smallest", "-0.25 (0.400)", "-1.75 (0.010)"],
    ]
    assert difference_table(rows[1:2]) == [["BLEU less another's (p)", "neuron - none"], ["largest", "-"]]
    assert difference_table(rows[::2][:2]) == []


def test_tables_from_elsewhere(tmp_path):
    table = tmp_path / "scores.csv"
    table.write_text("subnet,inherited,standalone,supernet,p_value,compared_with\na,1,2,x,,\na,3,2,y,0.25,x\n")
    assert difference_table(read_table(table))[1] == ["a", "+2.00 (0.250)"]
    table.write_text("subnet,inherited,standalone,p_value\na,1,2,small\n")
    with pytest.raises(InputError, match="row 1: p_value is small"):
        read_table(table)
