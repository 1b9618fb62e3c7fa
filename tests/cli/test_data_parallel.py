"""Data parallel training equals a single process's; examples/tools/train_parallel.sh starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, training

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("task", ["translation_mos", "masked_lm_mos"])  # the script knows language_modeling_mos, too
def test_equals_a_single_process(commands, tmp_path, task):
    """Two processes, 6 updates: sandwich; and different subnets on each, resumed in the middle, also in local rounds.

    Of masked language models the second only: the others are of the distribution, which knows no task.
    """
    script = ROOT / "tests" / "data_parallel_table.py"
    done = commands.python(script, "--quick", "--json", "--task", task, cwd=tmp_path, check=True, plugin=True)
    rows = [json.loads(line) for line in done.out.splitlines() if line.startswith("[")]
    found = {(backend, sampling): (difference, agree) for _, backend, sampling, _, difference, agree in rows}
    everything = task == "translation_mos"
    assert len(found) == (4 if everything else 2) and all(agree for _, agree in found.values())
    assert found["legacy_ddp", "sandwich, per rank"][0] < 1e-5
    assert found["legacy_ddp", "the same, resumed"][0] == 0
    assert not everything or found["pytorch_ddp", "sandwich"][0] < 1e-5
    assert not everything or found["pytorch_ddp", "local, resumed"][0] == 0


def test_launcher(joined, files, tmp_path):
    """examples/tools/train_parallel.sh: one run, one log, one set of checkpoints."""
    script = [str(ROOT / "examples" / "tools" / "train_parallel.sh"), "2"]
    short = ["--max-update", 1, "--disable-validation", "--no-epoch-checkpoints"]
    arguments = training(joined, tmp_path / "save dir", *short, space=files / "space.yaml")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = ["bash", *script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("| train_inner | ") == 1 and "training on 2 devices" in done.stdout
    assert (tmp_path / "save dir" / "checkpoint_last.pt").exists()
    done = subprocess.run(["bash", script[0], "--arch"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "'--arch': allowed are whole numbers from 1" in done.stderr
