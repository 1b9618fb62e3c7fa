"""The study of training recipes: its table of BLEU, and what it refuses."""

import json
import os
import subprocess

import pytest
import scores

from .conftest import EXAMPLES

BLEU = {"largest": 80.0, "random:3": 70.0, "random:5": 75.5, "random:7": 66.0, "smallest": 68.0}


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
        "| one | 2 | 80.5 ± 0.7 | 70.5 ± 0.7 | 76.0 ± 0.7 | 66.5 ± 0.7 | 68.5 ± 0.7 | 9.5 |",
    ]
    rows = json.loads((measured / "scores.json").read_text())
    assert len(rows) == 11
    assert {"recipe": "two-b", "seed": 1, "subnet": "largest", "bleu": 85.0} in rows


def test_rows_of_several_days(measured, tmp_path, capsys):
    """A recipe that is measured anew replaces its old row."""
    kept = tmp_path / "kept.json"
    old = {"recipe": "one", "seed": 1, "subnet": "largest", "bleu": 1.0}
    other = {"recipe": "other", "seed": 3, "subnet": "r1", "bleu": 2.0}
    kept.write_text(json.dumps([old, other]))
    scores.main([str(measured), str(kept)])
    rows = json.loads(kept.read_text())
    assert old not in rows and other in rows and len(rows) == 12
    assert old | {"bleu": 80.0} in rows and "| r1 |" in capsys.readouterr().out.splitlines()[0]


def test_a_log_without_bleu(measured):
    (measured / "translations-one-1-largest.log").write_text("error\n")
    with pytest.raises(SystemExit, match="translations-one-1-largest.log: fairseq-generate printed no BLEU"):
        scores.read_rows(measured)


@pytest.mark.parametrize(
    ("arguments", "recipes", "status", "told"),
    [
        ([], "", 2, "run.sh embedded WORK_DIR"),
        (["embedded"], "", 2, "run.sh embedded WORK_DIR"),
        (["libreoffice", "w"], "", 2, "run.sh libreoffice WORK_DIR DATA"),
        (["embedded", "w", "x"], "", 1, "SEED is x"),
        (["libreoffice", "w", "nowhere"], "", 1, "DATA is nowhere: no such folder"),
        (["embedded", "w"], "sandwich best", 1, "MOS_RECIPES has best: allowed are alternate"),
    ],
)
def test_bad_arguments(tmp_path, arguments, recipes, status, told):
    command = ["bash", str(EXAMPLES / "recipes" / "run.sh"), *arguments]
    env = {**os.environ, "MOS_RECIPES": recipes}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (status, []) and told in done.stderr
