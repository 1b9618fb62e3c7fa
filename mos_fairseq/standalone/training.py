"""Runs of ``fairseq-train``, each in its own folder: a killed run can resume, and several programs can share runs."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from fairseq import checkpoint_utils

import mos_fairseq
from mos_fairseq.errors import InputError
from mos_fairseq.files import lock, make_folder, write_atomically
from mos_fairseq.python import python_command, python_environment

_POLL = 0.1  # seconds


@dataclass(frozen=True)
class Training:
    """One training run, up to a number of updates; with a larger number, it continues.

    Args:
        root: folder of all runs; this run's subfolder is named by a hash of ``identity``.
        identity: everything that the outcome depends on, as plain values; saved in ``run.json``.
        arguments: arguments of ``fairseq-train``, without the number of updates and the places of files.
        updates: number of updates after which it ends.
        start: checkpoint with the initial weights; None for fresh ones.
    """

    root: Path
    identity: dict[str, Any]
    arguments: tuple[str, ...]
    updates: int
    start: Path | None = None

    @cached_property
    def folder(self) -> Path:
        """The folder of this run's files."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        return self.root / digest[:16]

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.folder / "checkpoints" / "checkpoint_last.pt"

    @property
    def command(self) -> list[str]:
        """Return the command that a user would type, as words."""
        begin = [] if self.start is None else ["--finetune-from-model", str(self.start)]
        # no best checkpoint: from it, fairseq would copy the last one, and a kill can interrupt the copy
        places = ["--save-dir", str(self.checkpoint.parent), "--no-epoch-checkpoints", "--disable-validation"]
        log = ["--log-format", "simple", "--log-interval", "50"]
        plugin = ["--user-dir", str(Path(mos_fairseq.__file__).parent)]
        # otherwise fairseq would use every GPU that it sees, each with its own batches
        process = ["--distributed-world-size", "1"]
        more = [*begin, *places, *log, *process, "--max-update", str(self.updates)]
        data, *rest = self.arguments
        return ["fairseq-train", data, *plugin, *more, *rest]

    @property
    def result(self) -> Path:
        """The checkpoint after ``updates``. It exists once the run is done, and stays if another run continues it."""
        return self.folder / f"checkpoint_{self.updates}.pt"

    def trained(self) -> int:
        """Return the number of updates of the last checkpoint; 0 without one.

        Raises:
            InputError: it has more than ``updates``, or cannot be read.
        """
        if not self.checkpoint.exists():
            return 0
        state = checkpoint_utils.load_checkpoint_to_cpu(str(self.checkpoint))
        updates = state["optimizer_history"][-1]["num_updates"]
        if updates > self.updates:
            raise InputError(f"{self.folder}: it has trained for {updates} updates, past {self.updates}: remove it")
        return updates

    def keep_result(self) -> None:
        """Keep the last checkpoint as the result. Raises InputError if there is none, or it has not ``updates``."""
        if not self.checkpoint.exists():
            raise InputError(f"{self.folder}: fairseq-train has ended without a checkpoint (log: train.log there)")
        if (updates := self.trained()) < self.updates:
            done = f"{updates} of {self.updates} updates"
            raise InputError(f"{self.folder}: fairseq-train has ended after {done} (log: train.log there)")
        with open(self.checkpoint, "rb") as content:
            write_atomically(self.result, lambda file: shutil.copyfileobj(content, file))


class _Running:
    """A training process, and the lock on its folder. The process holds the lock, too, in case this program dies."""

    def __init__(self, training: Training, threads: int) -> None:
        self.training, self.process = training, None
        folder = training.folder
        make_folder(folder)
        try:
            self.lock: IO[str] = open(folder / "lock", "a")
        except OSError as error:
            raise InputError(f"{folder / 'lock'}: cannot be written ({error.strerror or error})") from None
        try:
            lock(self.lock)
        except BlockingIOError:
            self.lock.close()
            raise
        try:
            if not training.result.exists():
                # an earlier run may have ended between its last checkpoint and the copy: fairseq would train one more
                if training.trained() == training.updates:
                    training.keep_result()
                else:
                    self.process = self._start(threads)
        except BaseException:
            self.lock.close()
            raise

    def _start(self, threads: int) -> subprocess.Popen:
        training = self.training
        command = shlex.join(training.command)
        write_atomically(training.folder / "run.json", json.dumps({"command": command} | training.identity, indent=1))
        with open(training.folder / "train.log", "ab") as log:
            return subprocess.Popen(
                python_command("-m", "mos_fairseq.standalone.train_process", *training.command[1:]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self.lock.fileno()] if os.name == "posix" else [],
                env=python_environment(OMP_NUM_THREADS=str(threads)),
            )

    def ended(self) -> bool:
        """Return whether the run has ended. Raises InputError if it failed."""
        status = 0 if self.process is None else self.process.poll()
        if status is None:
            return False
        if status:
            raise InputError(f"training failed (status {status}): {self._last_line()}")
        if self.process is not None:
            self.training.keep_result()
        self.lock.close()
        return True

    def _last_line(self) -> str:
        path = self.training.folder / "train.log"
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it says nothing")
        return f"{last.removeprefix('error: ')} (log: {path})"

    def stop(self) -> None:
        """End the process if it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        self.lock.close()


def train_all(trainings: Sequence[Training], workers: int, threads: int) -> Iterator[int]:
    """Run all unfinished trainings, ``workers`` at a time; yield each one's position as it ends.

    If another program trains in a folder, wait for it.

    Args:
        threads: torch's threads of each process.

    Raises:
        InputError: a run failed, which also ends the others; or a folder cannot be made.
    """
    waiting = list(range(len(trainings)))
    running: dict[int, _Running] = {}
    try:
        while waiting or running:
            for position in list(waiting):
                if len(running) < workers:
                    with suppress(BlockingIOError):
                        running[position] = _Running(trainings[position], threads)
                        waiting.remove(position)
            for position, run in list(running.items()):
                if run.ended():
                    del running[position]
                    yield position
            time.sleep(_POLL)
    finally:
        for run in running.values():
            run.stop()
