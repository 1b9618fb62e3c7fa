"""Kills, full disks and damaged files: everything resumes or reports the error, and nothing is lost.

python tests/faults.py [--quick] [--seed 1]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests import processes  # noqa: E402

SEARCH = ["--population-size", 12, "--parents", 4, "--mutations", 5, "--crossovers", 5]


class Report:
    """A line for each fault, and their numbers."""

    def __init__(self) -> None:
        self.faults = self.survived = self.lost = 0

    def add(self, what: str, survived: bool, lost: int = 0, faults: int = 1) -> None:
        self.faults, self.lost = self.faults + faults, self.lost + lost
        self.survived += survived * faults
        print(f"{'ok  ' if survived and not lost else 'LOST'} {what}", flush=True)


class Faults:
    """Everything below one folder, by one seed."""

    def __init__(self, folder: Path, seed: int, quick: bool) -> None:
        self.folder, self.draw, self.quick, self.report = folder, random.Random(seed), quick, Report()
        self.data, self.space = processes.prepare(folder / "data")
        self.updates = 24 if quick else 240  # whole epochs: no interval checkpoint at the end

    def train(self, save_dir: Path, *options: object) -> list[object]:
        often = ["--save-interval-updates", 5, "--keep-interval-updates", 2, "--dropout", 0.2, "--no-epoch-checkpoints"]
        more = [*often, "--validate-interval", 5, "--validate-interval-updates", 100, "--max-update", self.updates]
        return processes.training(self.data, self.space, save_dir, *more, *options)

    def start(self, command: str, *args: object, before: Callable[[], None] | None = None) -> processes.Job:
        return processes.start(command, *args, log=self.folder / "log", before=before)

    # --- training ---

    def training(self) -> Path:
        """Killed at random updates, and while a checkpoint is written; the end equals an undisturbed run's."""
        kills = 2 if self.quick else 24
        processes.run("train", *self.train(self.folder / "whole"), log=self.folder / "whole.log")
        save_dir, done, writing = self.folder / "killed", 0, 0
        while done < kills:
            job = self.start("train", *self.train(save_dir), before=slow_disk)
            caught = self._kill(job, save_dir, while_writing=done % 3 == 0)
            if caught is None:
                break
            done, writing = done + 1, writing + caught
        processes.run("train", *self.train(save_dir), log=self.folder / "log")
        equal = same_training(self.folder / "whole", save_dir)
        what = f"fairseq-train killed {done} times, {writing} of them while a checkpoint was written: the same weights"
        self.report.add(f"{what} and optimizer state as undisturbed", equal and done == kills, not equal, done)
        return save_dir

    def _kill(self, job: processes.Job, save_dir: Path, while_writing: bool) -> bool | None:
        """SIGKILL after some updates; return whether a checkpoint was half written, None if the run ended before."""
        wanted, delay = self.draw.randint(0, 7), self.draw.uniform(0, 0.1)
        while job.running():
            partial = list(save_dir.glob("*.tmp"))
            if partial if while_writing else job.text().count("| train_inner |") >= wanted:
                time.sleep(0 if while_writing else delay)
                job.kill()
                break
            time.sleep(0.002)
        return bool(list(save_dir.glob("*.tmp"))) if job.wait() == [-signal.SIGKILL] else None

    def lost_process(self) -> None:
        """One of two is killed, in local rounds and with gradients exchanged in every update: the other ends, too."""
        for name, options in {"local rounds": ["--local-updates", 2], "data parallel": []}.items():
            if self.quick and not options:
                continue
            options = [*options, "--subnets-per-rank", "--max-update", 8 if self.quick else 24, *processes.together(2)]
            folders = [self.folder / f"{name} {what}" for what in ("whole", "killed")]
            log = {"log": self.folder / "log", "ranks": 2}
            processes.run("train", *self.train(folders[0], *options), **log)
            for victim in (1,) if self.quick else (0, 1):
                shutil.rmtree(folders[1], ignore_errors=True)
                job = processes.start("train", *self.train(folders[1], *options), **log)
                reached = "checkpoint_*_5.pt" if self.quick else "checkpoint_*_10.pt"
                processes.until(lambda where=folders[1], name=reached: list(where.glob(name)))
                job.kill(victim)
                statuses, text = job.wait(60), job.text(1 - victim)
                told = "error: another process of this command has ended" in text.splitlines()[-1]
                fine = sorted(statuses) == [-signal.SIGKILL, 1] and told and "Traceback" not in text
                self.report.add(f"{name}, one of two processes killed: {text.splitlines()[-1][:100]}", fine)
                processes.run("train", *self.train(folders[1], *options), **log)
                equal = same_training(*folders)
                self.report.add(f"{name}: gone on, the same weights as undisturbed", equal, not equal)

    def damaged_checkpoints(self, save_dir: Path) -> None:
        last = save_dir / "checkpoint_last.pt"
        good = last.read_bytes()
        for part in (0.0, 0.3, 0.999):
            last.write_bytes(good[: int(part * len(good))])
            what = f"checkpoint_last.pt cut to {part:.1%}"
            self._refused(what, self.train(save_dir), "checkpoint_last.pt", "file is")
        last.write_bytes(good)
        for options in (["--mos-routing", "layer"], ["--search-space", "tiny"]):
            self._refused(f"a checkpoint for {options[1]}", self.train(save_dir, *options), "another supernet")
        interval = sorted(save_dir.glob("checkpoint_*_*.pt"), key=os.path.getmtime)[-1]
        shutil.copy(interval, last)
        processes.run("train", *self.train(save_dir), log=self.folder / "log")
        equal = same_training(self.folder / "whole", save_dir)
        self.report.add(f"gone on from {interval.name} instead: the same end", equal, not equal)

    def _refused(self, what: str, arguments: list[object], *words: str) -> None:
        job = self.start("train", *arguments)
        status, text = job.wait()[0], job.text()
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        fine = status == 1 and len(errors) == 1 and all(word in errors[0] for word in words) and "Traceback" not in text
        self.report.add(f"{what}: {errors[0][:110] if errors else 'no error'}", fine)

    def full_disk(self, checkpoint: Path) -> None:
        with small_disk(self.folder / "small", 6 * checkpoint.stat().st_size) as disk:
            if disk is None:
                print("--   full disk: not tried, mounting a tmpfs is not allowed here", flush=True)
                return
            job = self.start("train", *self.train(disk, "--max-update", 6, "--keep-interval-updates", 1))
            statuses, before = job.wait(), (disk / "checkpoint_last.pt").read_bytes()
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 20_000))
            arguments = self.train(disk, "--max-update", 12)
            self._refused("disk full while training", arguments, "cannot be written", "No space left")
            kept = statuses == [0] and (disk / "checkpoint_last.pt").read_bytes() == before
            self.report.add(
                "the last checkpoint on the full disk is whole, no half one beside it",
                kept and not list(disk.glob("*.tmp")),
                not kept,
            )
            job = self.start("mos-export", "--path", checkpoint, "--subnet", "largest", "--output", disk / "out.pt")
            fine = job.wait() == [1] and "No space left" in job.text() and "Traceback" not in job.text()
            left = [file.name for file in disk.iterdir() if "out.pt" in file.name]
            self.report.add(f"disk full while exporting: {job.text().splitlines()[-1][-90:]}", fine and not left)
            (disk / "filler").unlink()
            job = self.start("train", *arguments)
            lost = not (disk / "checkpoint_last.pt").exists()
            self.report.add("with room again, training goes on", job.wait() == [0], lost)

    # --- the other commands ---

    def search(self, checkpoint: Path) -> None:
        """Killed, then with a worker killed and one that hangs: the same results."""

        def arguments(name: str, *options: object) -> list[object]:
            output = self.folder / name
            more = [*SEARCH, "--iterations", 1 if self.quick else 6, *options]
            return [self.data, "--path", checkpoint, "--output", output, "--cache", output / "cache", *more]

        processes.run("mos-search", *arguments("search whole"), log=self.folder / "log")
        wanted = (self.folder / "search whole" / "search.json").read_text()
        cache = self.folder / "search killed" / "cache"
        for number in range(1 if self.quick else 4):
            job = self.start("mos-search", *arguments("search killed"))
            lines = self.draw.randint(3, 15) * (number + 1)
            while job.running() and sum(file.read_bytes().count(b"\n") for file in cache.glob("*.jsonl")) < lines:
                time.sleep(0.005)
            job.kill()
            job.wait()
        (judged,) = cache.glob("*.jsonl")
        before = judged.read_bytes()
        judged.write_bytes(before + b'{"key":"{\\"enc')  # as a kill in the middle of a line leaves it
        processes.run("mos-search", *arguments("search killed"), log=self.folder / "log")
        equal = (self.folder / "search killed" / "search.json").read_text() == wanted
        kept = judged.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
        self.report.add(
            "mos-search killed, its cache's last line cut: the same result, no subnet judged twice",
            equal and _keys_once(judged),
            not kept,
            2 if self.quick else 5,
        )
        for name, number in () if self.quick else (("killed", signal.SIGKILL), ("hanging", signal.SIGSTOP)):
            job = self.start("mos-search", *arguments(f"search worker {name}", "--workers", 3), before=impatient)
            cache = self.folder / f"search worker {name}" / "cache"
            while job.running() and not any(file.stat().st_size for file in cache.glob("*.jsonl")):
                time.sleep(0.005)
            children = [pid for pid in map(int, _children(job.pids[0])) if "spawn_main" in _command(pid)]
            os.kill(children[0], number)
            ended = job.wait(120) == [0]
            if name == "hanging":
                _kill_if_there(children[0])
            equal = ended and (self.folder / f"search worker {name}" / "search.json").read_text() == wanted
            self.report.add(f"a worker of three {name}: the search ends with the same result", equal)

    def latency(self) -> None:
        """Killed while measuring: every measurement that the file had stays, every subnet is measured once."""
        file = self.folder / "latency ü.jsonl"
        sizes = ["--src-len", 4, "--tgt-len", 4, "--beam", 1, "--warmup", 1, "--iterations", 5]
        arguments = ["measure", "--search-space", self.space, "--vocab-size", 40, "--num-subnets", 25, "--output", file]
        sizes += ["--repeats", 1]
        kept = True
        for _ in range(5):
            before = file.read_bytes() if file.exists() else b""
            job = self.start("mos-latency", *arguments, *sizes, "--threads", 1)
            lines = before.count(b"\n") + self.draw.randint(0, 6)
            while job.running() and (not file.exists() or file.read_bytes().count(b"\n") < lines):
                time.sleep(0.002)
            job.kill()
            job.wait()
            kept = kept and (not file.exists() or file.read_bytes().startswith(before[: before.rfind(b"\n") + 1]))
        processes.run("mos-latency", *arguments, *sizes, "--threads", 1, log=self.folder / "log")
        rows = file.read_bytes().count(b"\n")
        self.report.add(
            f"mos-latency measure killed 5 times: {rows - 1} of 25 measurements, none twice", rows == 26, not kept, 5
        )
        content = file.read_bytes().replace(b'"raw_latency_ms"', b'"raw_latency_xx"', 1)
        file.write_bytes(content)
        job = self.start("mos-latency", "fit", file, "--output", self.folder / "predictor.json")
        fine = job.wait() == [1] and "line 2 is no measured subnet" in job.text() and "Traceback" not in job.text()
        self.report.add(f"a damaged line within: {job.text().splitlines()[-1][-80:]}", fine)

    def export(self, checkpoint: Path) -> None:
        """Killed at any time: there is a whole file or none."""
        output, kills, fine = self.folder / "export.pt", 1 if self.quick else 6, True
        for _ in range(kills):
            output.unlink(missing_ok=True)
            arguments = ["--path", checkpoint, "--subnet", "random:3", "--output", output]
            job = self.start("mos-export", *arguments, before=slow_disk)
            time.sleep(self.draw.uniform(0, 0.6))
            job.kill()
            job.wait()
            fine = fine and (not output.exists() or readable(output))
        processes.run("mos-export", *arguments, log=self.folder / "log")
        self.report.add(f"mos-export killed {kills} times: a whole file or none", fine and readable(output), 0, kills)


def slow_disk() -> None:
    """A write that is slow enough to be killed in it."""
    import torch

    save = torch.save

    def slow(obj, file, *args, **kwargs):
        save(obj, file, *args, **kwargs)
        time.sleep(0.03)

    torch.save = slow


def impatient() -> None:
    from mos_fairseq.nas.workers import Workers

    Workers.__init__.__defaults__ = (1.0,)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path | None]:
    """Mount a tmpfs of ``size`` bytes, or return None without the right to mount."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _keys_once(file: Path) -> bool:
    keys = [line.split(b'"loss"')[0] for line in file.read_bytes().splitlines()]
    return len(keys) == len(set(keys))


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _kill_if_there(pid: int) -> None:
    if Path(f"/proc/{pid}").exists():
        os.kill(pid, signal.SIGKILL)


def readable(file: Path) -> bool:
    from fairseq import checkpoint_utils

    return "model" in checkpoint_utils.load_checkpoint_to_cpu(str(file))


def same_training(first: Path, second: Path) -> bool:
    """Whether the last checkpoints hold the same weights and optimizer state, bit by bit."""
    import torch
    from fairseq import checkpoint_utils

    a, b = (checkpoint_utils.load_checkpoint_to_cpu(str(path / "checkpoint_last.pt")) for path in (first, second))
    moments = [state["last_optimizer_state"]["state"] for state in (a, b)]
    pairs = [(a["model"][name], b["model"][name]) for name in a["model"]]
    pairs += [(moments[0][i][name], moments[1][i][name]) for i in moments[0] for name in ("exp_avg", "exp_avg_sq")]
    updates = [state["optimizer_history"][-1]["num_updates"] for state in (a, b)]
    return updates[0] == updates[1] and all(torch.equal(x, y) for x, y in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer kills, no workers")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    processes.import_everything()
    with tempfile.TemporaryDirectory(prefix="faults ü ") as folder:
        faults = Faults(Path(folder), args.seed, args.quick)
        save_dir = faults.training()
        faults.lost_process()
        faults.damaged_checkpoints(save_dir)
        faults.full_disk(save_dir / "checkpoint_last.pt")
        faults.search(save_dir / "checkpoint_last.pt")
        if not args.quick:
            faults.latency()
        faults.export(save_dir / "checkpoint_last.pt")
    report = faults.report
    print(f"{report.faults} faults, {report.survived} survived, {report.lost} lost")
    sys.exit(int(report.survived < report.faults or report.lost > 0))


if __name__ == "__main__":
    main()
