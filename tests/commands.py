"""Start fairseq's commands, ours, and other Python programs in tests: as forks, which import nothing again."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
USER_DIR = str(ROOT / "mos_fairseq")


@dataclass
class Done:
    """A finished command."""

    status: int
    out: str
    err: str

    def hypotheses(self) -> dict[int, str]:
        """Sentence number -> best hypothesis, from generate's or interactive's output."""
        return {number: text for number, (_, text) in self.found("H").items()}

    def found(self, letter: str) -> dict[int, list[str]]:
        """Sentence number -> fields of the lines that begin with the letter (H: score and hypothesis, ...)."""
        lines = (line.split("\t") for line in self.out.splitlines() if line.startswith(f"{letter}-"))
        return {int(name[2:]): fields for name, *fields in lines}

    def rows(self, tag: str) -> list[dict]:
        """The log's JSON rows of "train", "train_inner" or "valid", in order."""
        lines = (line.split(f"| {tag} | ", 1) for line in self.out.splitlines())
        return [json.loads(parts[1]) for parts in lines if len(parts) == 2]

    def error(self) -> str:
        """The one line that a user sees of a mistake."""
        assert self.status not in (0, None), self.out[-2000:]
        assert "Traceback" not in self.err + self.out, self.err[-3000:]
        lines = [line for line in self.err.splitlines() if not line.startswith(("INFO:", "DEBUG:"))]
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err[-3000:]
        return lines[0].removeprefix("error: ")


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}


def _cuda() -> str:
    """Set the GPUs that this process sees, as in CUDA_VISIBLE_DEVICES; "pretended" for a simulated one.

    Only tests of tests/gpu get a real GPU: the others count host waits, and run everywhere.
    """
    if "tests/gpu" not in os.environ.get("PYTEST_CURRENT_TEST", "") or not _has_gpu():
        return "pretended"
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0")


def _has_gpu() -> bool:
    import torch

    return os.environ.get("MOS_TEST_CUDA") != "pretended" and torch.cuda.is_available()


class Commands:
    """fairseq's commands: ``fork`` for most tests, ``spawn`` for a real console script."""

    def __init__(self, folder: Path, composed: Path) -> None:
        """``composed``: the folder of what :mod:`tests.composition` shares between processes."""
        self.folder, self.count = folder, 0
        server = [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(composed)]
        self.server = subprocess.Popen(
            server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=_environment(), cwd=folder
        )
        self._answers = b""
        assert self.answer() == "ready"

    def fork(self, command: str, *args: object, check: bool = True, **how: Any) -> Done:
        """``fairseq-COMMAND ARGS`` in a fork of a process that has imported fairseq; ``how`` as for ``start``."""
        done = self.start(command, *args, **how).wait()
        assert not check or done.status == 0, f"{done.err[-3000:]}\n{done.out[-1000:]}"
        return done

    def start(
        self,
        command: str,
        *args: object,
        cwd: Path | None = None,
        stdin: str = "",
        threads: int | None = None,
        cuda: bool = False,
        **environment: str,
    ) -> Running:
        """Start the same command without waiting for it. ``threads``: torch's threads (default: the environment's);
        ``cuda``: on a GPU, see :func:`_cuda`; ``environment``: variables to set."""
        plugin = command.startswith("mos-") or any(USER_DIR in str(a) for a in args)
        request = {"command": command, "threads": threads, "cuda": _cuda() if cuda else None, "plugin": plugin}
        return self._send(request, args, cwd, stdin, environment)

    def python(
        self,
        *words: object,
        check: bool = False,
        cwd: Path | None = None,
        stdin: str = "",
        threads: int | None = None,
        plugin: bool = False,
        **environment: str,
    ) -> Done:
        """``python WORDS`` (``-c CODE …``, ``-m MODULE …`` or ``SCRIPT …``) in a fork of a process that has imported
        torch and fairseq, and only with ``plugin`` mos_fairseq."""
        request = {"command": None, "threads": threads, "cuda": None, "plugin": plugin}
        done = self._send(request, words, cwd, stdin, environment).wait()
        assert not check or done.status == 0, f"{done.err[-3000:]}\n{done.out[-1000:]}"
        return done

    def _send(self, request: dict, args: tuple, cwd: Path | None, stdin: str, environment: dict[str, str]) -> Running:
        self.count += 1
        files = {name: str(self.folder / f"{self.count}.{name}") for name in ("stdin", "stdout", "stderr")}
        Path(files["stdin"]).write_text(stdin, encoding="utf-8")
        request |= {"args": [str(a) for a in args], "cwd": str(cwd or self.folder), "env": environment, **files}
        self.server.stdin.write(f"{json.dumps(request)}\n".encode())
        return Running(self, int(self.answer()), files)

    def answer(self, timeout: float = 300) -> str:
        """Return the next line from the server. Raises TimeoutError without one in ``timeout`` seconds."""
        while b"\n" not in self._answers:
            if not select.select([self.server.stdout], [], [], timeout)[0]:
                raise TimeoutError(f"no answer for {timeout} s")
            self._answers += os.read(self.server.stdout.fileno(), 4096) or b"the server has ended\n"
        line, _, self._answers = self._answers.partition(b"\n")
        return line.decode()

    def spawn(self, command: str, *args: object, cwd: Path | None = None, stdin: str = "", check: bool = True) -> Done:
        """``fairseq-COMMAND ARGS`` as users start it."""
        script = Path(sys.executable).with_name(command if command.startswith("mos-") else f"fairseq-{command}")
        run = subprocess.run(
            [str(script), *map(str, args)],
            cwd=cwd or self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            env=_environment(),
            timeout=300,
        )
        assert not check or run.returncode == 0, run.stderr[-3000:]
        return Done(run.returncode, run.stdout, run.stderr)


@dataclass
class Running:
    """A command that may still run."""

    commands: Commands
    pid: int
    files: dict[str, str]

    def kill(self) -> Done:
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self) -> Done:
        """Wait for the end. Raises TimeoutError after ten minutes, when the command is killed."""
        try:
            status = int(self.commands.answer(600))
        except TimeoutError:
            self.kill()
            raise
        return Done(status, *(Path(self.files[name]).read_text("utf-8") for name in ("stdout", "stderr")))


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    composed = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "composed"
    composed.mkdir(exist_ok=True)
    commands = Commands(tmp_path_factory.mktemp("commands"), composed)
    yield commands
    commands.server.kill()
    commands.server.wait()
