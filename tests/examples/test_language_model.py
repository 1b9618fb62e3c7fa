"""The study of language models: its table of losses, and refused input."""

import json
import subprocess
import sys

import losses
import pytest

from .conftest import EXAMPLES

COSTS = [{"subnet": "largest", "params": 1200, "flops": 9}, {"subnet": "random:2", "params": 700, "flops": 5}]


@pytest.fixture
def measured(tmp_path):
    """Results of run.sh for two seeds: one seed has 0.1 more, another routing 1 more."""
    (tmp_path / "costs.jsonl").write_text("".join(json.dumps(cost) + "\n" for cost in COSTS))
    for i, seed in enumerate((4, 5)):
        for j, routing in enumerate(losses.ROUTINGS):
            for name, loss in (("largest", 2.0), ("random-2", 3.5)):
                text = f"INFO | fairseq_cli.eval_lm | Loss (base 2): {loss + j + i / 10:.4f}, Perplexity: 4.00\n"
                (tmp_path / f"loss-{routing}-{seed}-{name}.log").write_text("Evaluated 9 tokens\n" + text)
    return tmp_path


def test_rows_and_table(measured, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["losses.py", str(measured), "4", "5"])
    losses.main()
    assert capsys.readouterr().out.splitlines() == [
        "| subnet | parameters | `none` | `layer` | `neuron` |",
        "|---|---|---|---|---|",
        "| largest | 1,200 | 2.050 | 3.050 | 4.050 |",
        "| random:2 | 700 | 3.550 | 4.550 | 5.550 |",
    ]
    rows = json.loads((measured / "losses.json").read_text())
    assert len(rows) == 12
    assert {"routing": "layer", "seed": 5, "subnet": "random:2", "params": 700, "loss": 4.6} in rows


def test_a_log_without_a_loss(measured):
    (measured / "loss-layer-4-largest.log").write_text("error\n")
    with pytest.raises(SystemExit, match="loss-layer-4-largest.log: fairseq-eval-lm printed no loss"):
        losses.read_rows(measured, ["4"])


@pytest.mark.parametrize(("arguments", "status", "told"), [([], 2, "run.sh WORK_DIR"), (["w", "x"], 1, "SEED is x")])
def test_bad_arguments(tmp_path, arguments, status, told):
    command = ["bash", str(EXAMPLES / "studies" / "language_model" / "run.sh"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (status, []) and told in done.stderr
