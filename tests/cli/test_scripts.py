"""Short runs of the reliability scripts."""

from __future__ import annotations

import subprocess

import pytest

from .conftest import ROOT

pytestmark = pytest.mark.slow

HERE = ROOT / "tests"


def test_faults(commands):
    """Killed trainings, damaged checkpoints, a full disk, a killed search and export."""
    last = commands.python(HERE / "faults.py", "--quick", check=True, plugin=True).out.splitlines()[-1]
    faults, survived, lost = (int(word) for word in last.split() if word.isdigit())
    assert faults == survived >= 12 and lost == 0


def test_portability_names_its_settings():
    done = subprocess.run(["bash", HERE / "portability.sh", "seeds1", "pentium"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: 'pentium': allowed are default avx2 ") and done.stderr.count("\n") == 1


def test_load(commands):
    """Memory grows linearly, not quadratically, and so does the time of what takes half a second."""
    assert commands.python(HERE / "load.py", "--part", 0.03, check=True, plugin=True).out.count("\n") == 8
