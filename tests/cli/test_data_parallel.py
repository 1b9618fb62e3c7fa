"""Data parallel training equals a single process's; examples/tools/train_parallel.sh starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes

from .conftest import ROOT

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


def test_launcher(tmp_path):
    """examples/tools/train_parallel.sh starts each process with the options that train together above.

    A program that tells its environment and arguments stands in for fairseq-train; tests/launchers.py has the real one.
    """
    program = tmp_path / "fairseq-train"
    tell = "import json, os, sys; told = json.dumps([dict(os.environ), sys.argv[1:]])"
    program.write_text(f"#!{sys.executable} -S\n{tell}\nopen('told.' + os.environ['RANK'], 'w').write(told)\n")
    program.chmod(0o755)
    script = str(ROOT / "examples" / "tools" / "train_parallel.sh")
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | {"PATH": path}
    words = ["bash", script, "2", "data bin", "--lr", "[0.1]"]
    subprocess.run(words, env=environment, check=True, capture_output=True, timeout=300, cwd=tmp_path)
    told = [json.loads((tmp_path / f"told.{rank}").read_text()) for rank in (0, 1)]
    for rank, (variables, arguments) in enumerate(told):
        together = [str(rank if word is processes.RANK else word) for word in processes.together(2)]
        assert arguments[:3] == ["data bin", "--lr", "[0.1]"]
        assert sorted(arguments[3:]) == sorted([*together, "--device-id", str(rank)])
        assert arguments[arguments.index("--distributed-rank") + 1] == variables["RANK"] == str(rank)
        assert (variables["WORLD_SIZE"], variables["LOCAL_RANK"], variables["OMP_NUM_THREADS"]) == ("2", str(rank), "1")
    assert told[0][0]["MASTER_PORT"] == told[1][0]["MASTER_PORT"]
    done = subprocess.run(["bash", script, "--arch"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "'--arch': allowed are whole numbers from 1" in done.stderr
