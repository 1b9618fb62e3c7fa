"""The table of the gap over seeds."""

import json
from pathlib import Path

import pytest
import summary

from mos_fairseq.gap import Row
from mos_fairseq.gap.report import summarise


def report(folder: Path, name: str, shift: float) -> str:
    """gap.json of two supernets and three subnets; inherited scores are standalone ones plus something."""
    rows = []
    for metric, scale in (("bleu", 1.0), ("loss", 0.01)):
        for index, subnet in enumerate(("largest", "middle", "smallest")):
            alone = scale * (30 + index)
            rows.append(Row(subnet, alone - scale * shift, alone, "none", metric))
            rows.append(Row(subnet, alone + scale * (2 - 2 * index), alone, "neuron", metric))
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"gaps": summarise(rows), "scores": [row.to_dict() for row in rows]}))
    return str(path)


def test_mean_and_range_over_seeds(tmp_path):
    reports = [summary.read(report(tmp_path, f"seed{shift}", shift)) for shift in (1.0, 2.0)]
    lines = summary.table(reports)
    assert lines[:2] == ["| BLEU: supernet | mean | bias | MAE | tau |", "|---|---|---|---|---|"]
    assert lines[2] == "| alone | 31.0 (31.0 to 31.0) | | | |"
    assert lines[3].startswith("| none | 29.5 (29.0 to 30.0) | -1.5 (-2.0 to -1.0) | 1.5 (1.0 to 2.0) | 1.00 (1.00 to")
    assert lines[4].startswith("| neuron | 31.0 (31.0 to 31.0) | +0.0 (+0.0 to +0.0) | 1.3 (1.3 to 1.3) | -1.00 (-1.00")
    assert lines[6].startswith("| loss [bits]: supernet") and lines[9].startswith("| none | 0.295 (0.290 to 0.300)")


def test_supernets_may_differ(tmp_path):
    one, two = (summary.read(report(tmp_path, name, 1.0)) for name in ("a", "b"))
    lines = summary.table([{key: gap for key, gap in one.items() if key[1] == "neuron"}, two])
    assert lines[2].startswith("| alone | 31.0") and lines[4].startswith("| none | 30.0 |")
    (tmp_path / "bad.json").write_text("{}")
    for name in ("bad.json", "no.json"):
        with pytest.raises(SystemExit, match=f"{name}: no gap.json of mos-gap"):
            summary.read(str(tmp_path / name))


def test_one_seed_has_no_range(tmp_path):
    assert summary.table([summary.read(report(tmp_path, "one", 1.0))])[3] == "| none | 30.0 | -1.0 | 1.0 | 1.00 |"
    assert summary.spread([None], 2) == "-" and summary.spread([0.5, None], 1) == "0.5"
