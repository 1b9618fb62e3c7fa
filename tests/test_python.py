"""The package's own processes use the package that starts them, though the current folder holds another copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TRAINING = """
import sys
from pathlib import Path
import mos_fairseq
from mos_fairseq.standalone.training import Training, train_all
print(mos_fairseq.__path__[0])
supernet = ("--task", "translation_mos", "--search-space", "tiny", "--arch", "transformer_mos", "--max-tokens", "9")
list(train_all([Training(Path(sys.argv[1]), {}, ("absent", *supernet), 1)], 1, 1))
"""
ANY = """
import subprocess, sys
sys.argv = ["mos-cost"]  # as one of the commands, it is imported without torch and fairseq
from mos_fairseq.python import python_command, python_environment
which = "from importlib.util import find_spec; print(find_spec('mos_fairseq').origin)"
nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {which!r}])"
for code in (which, nested):
    subprocess.run(python_command("-c", code), env=python_environment(), check=True)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The package as ``pip install .`` puts it elsewhere: no link to this folder."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    shutil.copytree(ROOT / "mos_fairseq", source / "mos_fairseq", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder / "site", source], check=True, timeout=200)
    return folder / "site"


def run(installed: Path, *arguments: object) -> subprocess.CompletedProcess:
    """A Python, or a script of the installed package, that is started in this repository's root."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = list(map(str, arguments))
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)


def test_trainings_of_mos_gap(installed, tmp_path):
    """They get as far as to read the data; another copy would be refused before, as a second plugin."""
    done = run(installed, sys.executable, "-P", "-c", TRAINING, tmp_path)
    assert done.stdout.splitlines() == [str(installed / "mos_fairseq")], done.stderr
    assert "data is absent: no such folder" in done.stderr.splitlines()[-1]


def test_every_process_and_what_it_starts(installed):
    done = run(installed, sys.executable, "-P", "-c", ANY)
    assert done.stdout.splitlines() == [str(installed / "mos_fairseq" / "__init__.py")] * 2, done.stderr
