"""The paired bootstrap knows chance from difference, and its table says so."""


from mos_fairseq.gap import Row
from mos_fairseq.gap.report import difference_table
from mos_fairseq.gap.significance import paired_bootstrap

REFERENCES = [f"the {i} small words of sentence {i * 7} are here" for i in range(60)]
GOOD = [line if i % 5 else "something else" for i, line in enumerate(REFERENCES)]
OTHER = [line if i % 5 != 1 else "something else" for i, line in enumerate(REFERENCES)]
BAD = [line if i % 2 else "something else" for i, line in enumerate(REFERENCES)]


def test_chance_and_difference():
    found = paired_bootstrap({"good": GOOD, "other": OTHER, "bad": BAD}, REFERENCES, 300)
    assert list(found) == ["good", "other", "bad"] and "p_value" not in found["good"]
    assert found["other"]["p_value"] > 0.3 and found["bad"]["p_value"] < 0.01
    assert all(0 < values["bleu_ci"] < 30 for values in found.values())
    assert paired_bootstrap({"good": GOOD, "bad": BAD}, REFERENCES, 300)["bad"] == found["bad"]  # same seed, same draws


def test_table():
    def row(subnet, supernet, score, **details):
        return Row(subnet, score, 30.0, supernet, "bleu", details=details)

    rows = [
        row("largest", "none", 20.0, bleu_ci=1.0),
        row("largest", "neuron", 21.5, bleu_ci=1.0, p_value=0.012),
        row("smallest", "none", 12.0, bleu_ci=1.0),
        row("smallest", "neuron", 11.75, bleu_ci=1.0, p_value=0.4),
    ]
    assert difference_table(rows) == [
        ["BLEU less none's (p)", "neuron"],
        ["largest", "+1.50 (0.012)"],
        ["smallest", "-0.25 (0.400)"],
    ]
    assert difference_table(rows[::2]) == []
