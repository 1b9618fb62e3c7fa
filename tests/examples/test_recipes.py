"""The study of training recipes: its table of BLEU, and what it refuses."""

import json
import os
import subprocess

import pytest
import scores

from .conftest import EXAMPLES

BLEU = dict(zip(scores.SUBNETS, (80.0, 70.0, 75.5, 66.0, 68.0), strict=True))


@pytest.fixture
def measured(tmp_path):
    """What run.sh leaves behind: two seeds of one recipe, and of another the first subnet only."""
    for name, seed, more, subnets in (("one", 1, 0, BLEU), ("one", 2, 1, BLEU), ("two-b", 1, 5, ["largest"])):
        for subnet in subnets:
            stem = f"translations-{name}-{seed}-{subnet.replace(':', '-')}"
            log = f"Generate test with beam=4: BLEU = {BLEU[subnet] + more:.2f} 90.1/80.2 (BP = 1.000)"
            (tmp_path / f"{stem}.log").write_text(log + "\n")
            (tmp_path / f"{stem}.done").touch()
    (tmp_path / "translations-one-3-largest.log").write_text("half of it")  # not done yet
    return tmp_path


def test_rows_and_table(measured, capsys):
    scores.main([str(measured)])
    assert capsys.readouterr().out.splitlines() == [
        "| recipe | seeds | largest | random:3 | random:5 | random:7 | smallest | spread |",
        "|---|---|---|---|---|---|---|---|",
        "| one | 2 | 80.5 | 70.5 | 76.0 | 66.5 | 68.5 | 9.5 |",
    ]
    rows = json.loads((measured / "scores.json").read_text())
    assert len(rows) == 11
    assert {"recipe": "two-b", "seed": 1, "subnet": "largest", "bleu": 85.0} in rows


def test_a_log_without_bleu(measured):
    (measured / "translations-one-1-largest.log").write_text("error\n")
    with pytest.raises(SystemExit, match="translations-one-1-largest.log: fairseq-generate printed no BLEU"):
        scores.read_rows(measured)


@pytest.mark.parametrize(
    ("arguments", "recipes", "status", "told"),
    [
        ([], "", 2, "run.sh WORK_DIR"),
        (["w", "x"], "", 1, "SEED is x"),
        (["w"], "sandwich best", 1, "MOS_RECIPES has best: allowed are alternate-by-cost"),
    ],
)
def test_bad_arguments(tmp_path, arguments, recipes, status, told):
    command = ["bash", str(EXAMPLES / "recipes" / "run.sh"), *arguments]
    env = {**os.environ, "MOS_RECIPES": recipes}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (status, []) and told in done.stderr
