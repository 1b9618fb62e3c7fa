"""Short runs of the reliability scripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=500, cwd=HERE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_faults():
    """Killed trainings, damaged checkpoints, a full disk, a killed search and export."""
    last = run("faults.py", "--quick").splitlines()[-1]
    faults, survived, lost = (int(word) for word in last.split() if word.isdigit())
    assert faults == survived >= 14 and lost == 0


def test_portability_names_its_settings():
    done = subprocess.run(["bash", HERE / "portability.sh", "seeds1", "pentium"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: 'pentium': allowed are default avx2 ") and done.stderr.count("\n") == 1


def test_load():
    """Time and memory grow linearly, not quadratically."""
    assert run("load.py", "--part", "0.05").count("\n") == 8
