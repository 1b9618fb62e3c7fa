"""What needs no torch comes before it: help, versions, mistakes in what is typed; and whole commands that never do."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import mos_fairseq

GOLDEN = Path(__file__).parents[1] / "golden" / "latency"
COMMANDS = {
    entry.name: entry.module for entry in metadata.entry_points(group="console_scripts") if entry.name[:4] == "mos-"
}
# as the console script, which then says what it has imported
SCRIPT = """
import atexit, importlib, sys
module, *sys.argv = sys.argv[1:]
heavy = ("fairseq", "lightgbm", "matplotlib", "pymoo", "scipy", "sklearn", "torch")
atexit.register(lambda: print(*(name for name in heavy if name in sys.modules), file=sys.stderr))
importlib.import_module(module).main()
"""
LIGHT = ""


def start(command: str, *arguments: object, cwd: Path | None = None) -> tuple[int, str, list[str]]:
    """(exit status, standard output, lines of standard error, of which the last names heavy packages)."""
    words = [sys.executable, "-c", SCRIPT, COMMANDS[command], command, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(mos_fairseq.__file__).parents[1]), "COLUMNS": "100"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=cwd, timeout=120)
    return done.returncode, done.stdout, done.stderr.split("\n")[:-1]


def test_all_commands_are_known():
    assert {name: module.rpartition(".")[2] for name, module in COMMANDS.items()} == {
        name: name.removeprefix("mos-").replace("-", "_") for name in COMMANDS
    }
    assert len(COMMANDS) == 8


@pytest.mark.parametrize(
    "words", [*COMMANDS, "mos-gap measure", "mos-gap report", *(f"mos-latency {c}" for c in
              ("measure", "fit", "predict", "report"))]
)  # fmt: skip
def test_help_and_mistakes(words):
    status, out, err = start(*words.split(), "--help")
    assert (status, err) == (0, [LIGHT])
    assert "\nexample:\n  mos-" in out
    status, out, err = start(*words.split(), "--nonsense")
    assert (status, out, err[-1]) == (2, "", LIGHT) and "error: " in err[-2]


@pytest.mark.parametrize("command", COMMANDS)
def test_version(command):
    status, out, err = start(command, "--version")
    assert (status, err) == (0, [LIGHT])
    assert out.startswith(f"mos-fairseq {mos_fairseq.__version__}, ")
    assert f", torch {metadata.version('torch')}, Python 3." in out and "fairseq 0.12.3" in out


def test_the_installed_version_is_the_packages():
    assert metadata.version("mos-fairseq") == mos_fairseq.__version__


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mos-search data --path c.pt --output o --constraint 40", "constraint '40': allowed is KEY<=NUMBER"),
        ("mos-search data --path c.pt --output o --constraint latency_ms<=4", "latency_ms needs a predictor"),
        ("mos-search data --path c.pt --output o --workers 0", "workers is 0"),
        ("mos-search data --path c.pt --output o --max-tokens 0", "max_tokens is 0"),
        ("mos-search data --path c.pt --output o", "checkpoint c.pt: no such file"),
        ("mos-export --path c.pt --subnet largest --output o --data d", "data is given with format"),
        ("mos-export --path c.pt --subnet largest --output o", "checkpoint c.pt: no such file"),
        ("mos-diagnose data --path c.pt --output o", "checkpoint c.pt: no such file"),
        ("mos-diagnose data --path c.pt --output o --seed -1", "seed is -1"),
        ("mos-gap measure data --path c.pt --output o --subnet largest", "checkpoint c.pt: no such file"),
        ("mos-gap measure data --path c.pt --output o", "no subnets are given"),
        ("mos-gap report absent.csv --output o", "absent.csv"),
        ("mos-warm-start --path c.pt --search-space absent.yaml --output o", "search space 'absent.yaml'"),
        ("mos-warm-start --path c.pt --search-space tiny --output o", "checkpoint c.pt: no such file"),
        ("mos-benchmark --search-space absent.yaml", "search space 'absent.yaml'"),
        ("mos-benchmark --search-space tiny --suite all,some", "suite is all: allowed are train"),
        ("mos-latency measure --search-space tiny --vocab-size 3 --subnet largest --output o", "vocab_size is 3"),
        ("mos-latency measure --search-space tiny --vocab-size 30 --subnet larges --output o", "subnet 'larges'"),
        ("mos-latency predict absent.json --subnet largest", "absent.json: cannot be read"),
        ("mos-cost --search-space tiny --subnet larges", "subnet 'larges'"),
    ],
)
def test_errors_that_need_no_torch(tmp_path, words, message):
    status, out, err = start(*words.split(), cwd=tmp_path)
    assert (status, out) == (1, "") and len(err) == 2 and err[0].startswith("error: ") and message in err[0], err
    assert not {"fairseq", "torch"} & set(err[1].split())
    assert not list(tmp_path.iterdir())


def test_commands_that_never_need_torch(tmp_path):
    runs = {
        "mos-cost": ["--search-space", "tiny"],
        "mos-latency": ["predict", GOLDEN / "predictor.json", "--subnet", "largest"],
    }
    for command, arguments in runs.items():
        status, out, err = start(command, *arguments, cwd=tmp_path)
        assert status == 0 and "largest" in out and not {"fairseq", "torch"} & set(err[-1].split()), err
