"""Work that needs no torch comes before its import: help, versions, input errors; some commands never import it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import mos_fairseq
from mos_fairseq.cli import index

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden" / "latency"
COMMANDS = {
    entry.name: entry.module for entry in metadata.entry_points(group="console_scripts") if entry.name[:4] == "mos-"
}
SUB_COMMANDS = {"mos-gap": ("measure", "report"), "mos-latency": ("measure", "fit", "predict", "report")}
HEAVY = ("fairseq", "lightgbm", "matplotlib", "pymoo", "scipy", "sklearn", "torch")
# As a console script: one process, in which a command is run with one list of arguments after the other. Of each:
# status, standard output, standard error, and which heavy packages are imported by then.
SCRIPT = """
import importlib, io, json, sys
from contextlib import redirect_stderr, redirect_stdout
module, heavy, command, runs = json.loads(sys.argv[1])
sys.argv = [command]
main = importlib.import_module(module).main
found = []
for arguments in runs:
    status, out, err = 0, io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stop:
            status = stop.code
        except Exception:
            status = 1
            sys.excepthook(*sys.exc_info())
    found.append([status or 0, out.getvalue(), err.getvalue(), [name for name in heavy if name in sys.modules]])
print(json.dumps(found))
"""
MISTAKES = {
    "mos-search": [
        ("data --path c.pt --output o --constraint 40", "constraint '40': allowed is KEY<=NUMBER"),
        ("data --path c.pt --output o --constraint latency_ms<=4", "latency_ms needs a predictor"),
        ("data --path c.pt --output o --workers 0", "workers is 0"),
        ("data --path c.pt --output o --max-tokens 0", "max_tokens is 0"),
        ("data --path c.pt --output o", "checkpoint c.pt: no such file"),
    ],
    "mos-export": [
        ("--path c.pt --subnet largest --output o --data d", "data is given with format"),
        ("--path c.pt --subnet largest --output o", "checkpoint c.pt: no such file"),
    ],
    "mos-diagnose": [
        ("data --path c.pt --output o", "checkpoint c.pt: no such file"),
        ("data --path c.pt --output o --seed -1", "seed is -1"),
    ],
    "mos-finetune": [
        ("data --path c.pt --subnet largest --updates 0 --output o", "updates is 0"),
        ("data --path c.pt --subnet largest --updates 5 --output o --lr -1", "lr is -1.0"),
        ("data --path c.pt --subnet largest --updates 5 --output o", "checkpoint c.pt: no such file"),
    ],
    "mos-gap": [
        ("measure data --path c.pt --output o --subnet largest", "checkpoint c.pt: no such file"),
        ("measure data --path c.pt --output o", "no subnets are given"),
        ("report absent.csv --output o", "absent.csv"),
    ],
    "mos-warm-start": [
        ("--path c.pt --search-space absent.yaml --output o", "search space 'absent.yaml'"),
        ("--path c.pt --search-space tiny --output o", "checkpoint c.pt: no such file"),
    ],
    "mos-benchmark": [
        ("--search-space absent.yaml", "search space 'absent.yaml'"),
        ("--search-space tiny --suite all,some", "suite is all,some: allowed are train"),
    ],
    "mos-latency": [
        ("measure --search-space tiny --vocab-size 3 --subnet largest --output o", "vocab_size is 3"),
        ("measure --search-space tiny --vocab-size 30 --subnet larges --output o", "subnet 'larges'"),
        ("predict absent.json --subnet largest", "absent.json: cannot be read"),
    ],
    "mos-cost": [("--search-space tiny --subnet larges", "subnet 'larges'")],
}


def run(command: str, runs: list[list[str]], cwd: Path) -> list[tuple[int, str, str, set[str]]]:
    """(status, standard output, standard error, heavy packages) after each of ``runs``."""
    order = json.dumps([COMMANDS[command], HEAVY, command, runs])
    environment = os.environ | {"PYTHONPATH": str(Path(mos_fairseq.__file__).parents[1]), "COLUMNS": "100"}
    words = [sys.executable, "-c", SCRIPT, order]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=cwd, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-3000:]
    return [(status, out, err, set(heavy)) for status, out, err, heavy in json.loads(done.stdout)]


def test_all_commands_are_known():
    assert COMMANDS == {name: f"mos_fairseq.cli.{name[4:].replace('-', '_')}" for name in MISTAKES}
    assert list(index.COMMANDS) == [parser.prog for parser in index.parsers()] and set(index.COMMANDS) == set(COMMANDS)
    assert metadata.version("mos-fairseq") == mos_fairseq.__version__


@pytest.mark.parametrize("command", MISTAKES)
def test_what_needs_no_torch_comes_before_it(command, tmp_path):
    parsers = [[], *([name] for name in SUB_COMMANDS.get(command, ()))]
    wrong = [words for words, _ in MISTAKES[command]]
    runs = [[*parser, option] for parser in parsers for option in ("--help", "--nonsense")]
    found = run(command, [["--version"], *runs, *(words.split() for words in wrong)], tmp_path)
    status, out, err, heavy = found[0]
    assert (status, err, heavy) == (0, "", set()) and out.startswith(f"mos-fairseq {mos_fairseq.__version__}, ")
    assert f", torch {metadata.version('torch')}, Python 3." in out and "fairseq 0.12.3" in out
    for arguments, (status, out, err, heavy) in zip(runs, found[1:], strict=False):
        assert heavy == set(), arguments
        if arguments[-1] == "--help":
            assert (status, err) == (0, "") and "\nexample:\n  mos-" in out
        else:
            assert (status, out) == (2, "") and "error: " in err.splitlines()[-1]
    for (words, message), (status, out, err, heavy) in zip(MISTAKES[command], found[-len(wrong) :], strict=True):
        assert (status, out) == (1, "") and err.startswith("error: ") and message in err, (words, err)
        assert err.count("\n") == 1 and not {"fairseq", "torch"} & heavy, words
    assert not list(tmp_path.iterdir())


def test_mos_lists_the_commands(tmp_path):
    script = shutil.which("mos")
    done = subprocess.run([script], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and [row.split()[0] for row in done.stdout.splitlines()] == list(
        index.COMMANDS
    )
    done = subprocess.run([script, "search"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and done.stderr.endswith("error: unrecognized arguments: search\n")


def test_commands_that_never_need_torch(tmp_path):
    runs = {
        "mos-cost": ["--search-space", "tiny"],
        "mos-latency": ["predict", str(GOLDEN / "predictor.json"), "--subnet", "largest"],
    }
    for command, arguments in runs.items():
        ((status, out, _, heavy),) = run(command, [arguments], tmp_path)
        assert status == 0 and "largest" in out and not {"fairseq", "torch"} & heavy


def test_a_commands_workers_have_everything_from_the_start(tmp_path):
    """Their pickled input may need the plugin; and a later import of fairseq would leave a semaphore."""
    script = tmp_path / "mos-search"
    script.write_text("""
import multiprocessing, sys
import mos_fairseq

def loaded():
    print("mos_fairseq.plugin" in sys.modules, flush=True)

if __name__ == "__main__":
    loaded()
    worker = multiprocessing.get_context("spawn").Process(target=loaded)
    worker.start()
    worker.join()
""")
    environment = os.environ | {"PYTHONPATH": str(Path(mos_fairseq.__file__).parents[1])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.stdout.split(), done.stderr) == (["False", "True"], "")
