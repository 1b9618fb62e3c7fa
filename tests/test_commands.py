"""A command of fairseq or ours is known as such however it is started; a program that imports the package is none."""

import builtins
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mos_fairseq.compat.commands import _module_option, running_command

ROOT = Path(__file__).resolve().parents[1]
SAY = "from mos_fairseq.compat.commands import running_command\nprint(running_command())\n"


@pytest.fixture
def said(commands):
    """The process's own description."""

    def said(*words: object) -> str:
        done = commands.python(*words, MOS_FAIRSEQ_COMPAT="off")
        assert done.status == 0, done.err
        return done.out.splitlines()[-1]

    return said


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("/usr/bin/fairseq-train", "fairseq-train"),
        ("fairseq-eval-lm", "fairseq-eval-lm"),
        ("C/fairseq-hydra-train.exe", "fairseq-hydra-train"),
        ("/usr/bin/mos-warm-start", "mos-warm-start"),
        ("/somewhere/fairseq_cli/generate.py", "fairseq-generate"),
        (str(ROOT / "mos_fairseq/cli/gap.py"), "mos-gap"),
        (str(ROOT / "mos_fairseq/standalone/train_process.py"), "fairseq-train"),
        # others' programs
        ("fairseq-serve", None), ("mos-eisley", None), ("mos-", None), ("train.py", None),
        ("fairseq_cli/mine.py", None),
        (str(ROOT / "mos_fairseq/files.py"), None), ("/usr/bin/pytest", None), ("ipykernel_launcher.py", None),
        ("-c", None), ("", None),
    ],
)  # fmt: skip
def test_by_the_program(monkeypatch, tmp_path, program, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [program, "--path", "fairseq-train"])
    assert running_command() == command


def test_a_script_of_a_fairseq_checkout(monkeypatch, tmp_path):
    (tmp_path / "fairseq_cli").mkdir()
    (tmp_path / "fairseq_cli" / "train.py").touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "train.py")])
    assert running_command() == "fairseq-train"


@pytest.mark.parametrize("session", ["notebook", "prompt"])
def test_an_interactive_session_is_none(monkeypatch, session):
    monkeypatch.setattr(sys, "argv", ["fairseq-train"])
    marker = (builtins, "__IPYTHON__") if session == "notebook" else (sys, "ps1")
    monkeypatch.setattr(*marker, ">", raising=False)
    assert running_command() is None


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (["-m", "a.b", "-m", "c"], "a.b"), (["-ma.b"], "a.b"), (["-uPm", "a"], "a"),
        (["-W", "ignore", "-Xdev", "-m", "a"], "a"),
        (["-X", "-m", "-m", "a"], "a"), (["--check-hash-based-pycs", "never", "-m", "a"], "a"),
        (["-c", "x", "-m", "a"], ""), (["script", "-m", "a"], ""), (["-", "-m", "a"], ""), ([], ""),
    ],
)  # fmt: skip
def test_the_interpreters_own_arguments(words, module):
    assert _module_option(words) == module


def test_by_the_process(said, tmp_path):
    """Checked while mos_fairseq is being imported, in a command's process, in its children, and in programs."""
    script = tmp_path / "fairseq-train"
    script.write_text(SAY)
    assert said(script) == "fairseq-train"
    assert said("-c", SAY) == "None"
    children = "import multiprocessing as m\nfrom mos_fairseq.compat.commands import running_command\n"
    children += "def say(): print(running_command(), flush=True)\n"
    children += "if __name__ == '__main__':\n    p = m.get_context('spawn').Process(target=say); p.start(); p.join()\n"
    folder = tmp_path / "fairseq_cli"
    folder.mkdir()
    (folder / "train.py").write_text(children)
    assert said(folder / "train.py") == "fairseq-train"


@pytest.mark.parametrize("module", ["fairseq_cli.train", "mos_fairseq.standalone.train_process"])
def test_a_module_that_is_a_command_tells_mistakes_in_one_line(commands, module, tmp_path):
    """The first in a Python of its own, where nothing is as the fork server says."""
    words = [
        "-m",
        module,
        "nowhere",
        "--task",
        "translation_mos",
        "--arch",
        "transformer_mos",
        "--search-space",
        "tiny",
    ]
    words += ["--max-tokens", "9", "--user-dir", str(ROOT / "mos_fairseq")]
    if module == "fairseq_cli.train":
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "ignore", *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        status, told = done.returncode, done.stderr
    else:
        done = commands.python(*words, cwd=tmp_path)
        status, told = done.status, done.err
    assert status == 1 and "Traceback" not in told
    assert told.splitlines()[-1].startswith("error: data is nowhere: no such folder")
