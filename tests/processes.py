"""Commands in forked processes, several that train together included, for the scripts beside this file.

``import_everything`` has to be called before; a fork then starts in milliseconds. The process that forks computes
nothing with torch itself.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml
from torch.distributed import TCPStore

from tests import composition
from tests.seeds import moved
from tests.spaces import EVEN_BOTTLENECK_SPACE, EVEN_LM_SPACE, EVEN_SPACE

ROOT = Path(__file__).resolve().parents[1]
USER_DIR = str(ROOT / "mos_fairseq")
RANK = "RANK/"  # in arguments, replaced by the process's rank
# depths differ, so that whole layers are without gradients
DEPTHS = {"encoder_layers": [2, 1], "decoder_layers": [3, 2, 1]}
SPACES = {
    "translation_mos": EVEN_SPACE | DEPTHS,
    "language_modeling_mos": EVEN_LM_SPACE | {"decoder_layers": [3, 2, 1]},
    "masked_lm_mos": EVEN_BOTTLENECK_SPACE,
}

T = TypeVar("T")
_composed: tempfile.TemporaryDirectory | None = None


def until(condition: Callable[[], T], seconds: float = 300) -> T:
    """Return the result of ``condition`` as soon as it is true.

    Raises:
        TimeoutError: it was not true within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing within {seconds} s")
        time.sleep(0.002)
    return found


def import_everything() -> None:
    """Import the modules that commands need; run it in a separate process, since it silences logging and warnings."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    sys.path.insert(0, str(ROOT))
    parts = ["checkpoint_utils", "options", "tasks", "trainer"]
    ours = ["search", "latency", "export"]
    names = [*(f"fairseq.{part}" for part in parts), "mos_fairseq", *(f"mos_fairseq.cli.{name}" for name in ours)]
    for name in ["torch._dynamo", "sacrebleu", *names]:  # the first is imported by every optimizer
        importlib.import_module(name)
    if not composition.remembers():  # this process is no fork of one that does
        global _composed
        _composed = tempfile.TemporaryDirectory(prefix="composed-")
        composition.remember(Path(_composed.name))
    logging.root.handlers.clear()


@dataclass
class Job:
    """A command that runs, in one process or several."""

    pids: list[int]
    logs: list[Path]
    store: TCPStore | None = None

    def kill(self, number: int | None = None) -> None:
        """SIGKILL to one process, or to all."""
        for pid in self.pids if number is None else [self.pids[number]]:
            os.kill(pid, signal.SIGKILL)

    def running(self) -> bool:
        return os.waitid(os.P_PID, self.pids[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self, timeout: float = 300) -> list[int]:
        """Return exit statuses, negative for signals. Processes not done by then are killed."""
        deadline, statuses = time.monotonic() + timeout, []
        for pid in self.pids:
            while not (done := os.waitpid(pid, os.WNOHANG))[0]:
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.005)
            statuses.append(os.waitstatus_to_exitcode(done[1]))
        return statuses

    def text(self, rank: int = 0) -> str:
        return self.logs[rank].read_text("utf-8", errors="replace")


def start(
    command: str,
    *args: object,
    log: Path,
    ranks: int = 1,
    before: Callable[[], None] | None = None,
    agent: bool = False,
) -> Job:
    """Run ``fairseq-COMMAND ARGS``, or our command of that name, in ``ranks`` processes connected by torch's
    environment variables; ``before`` is called in each of them. With ``agent``, this process has the store, as torchrun
    does; otherwise the first of them."""
    environment, store = {}, None
    if ranks > 1:
        if agent:
            store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            environment["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        environment |= {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(ranks)}
        environment["MASTER_PORT"] = str(store.port if store else _free_port())
    job = Job([], [log.with_name(f"{log.name}.{rank}") for rank in range(ranks)], store)
    composition.learn()
    for rank in range(ranks):
        more = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        pid = os.fork()
        if pid == 0:
            words = [str(rank if a is RANK else a) for a in args]
            os._exit(ended(partial(_child, command, words, job.logs[rank], more, before)))
        job.pids.append(pid)
    return job


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def ended(program: Callable[[], None]) -> int:
    """Return the exit status of a program, after the interpreter's work at its end."""
    try:
        program()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _child(command: str, args: list[str], log: Path, environment: dict, before: Callable[[], None] | None) -> None:
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if before is not None:
        before()
    ours = command.startswith("mos-")
    sys.argv = [command if ours else f"fairseq-{command}", *args]
    name = f"mos_fairseq.cli.{command.removeprefix('mos-')}" if ours else f"fairseq_cli.{command}"
    module = importlib.import_module(name)
    # the package was imported by a program; a command would have installed it then
    importlib.import_module("mos_fairseq.compat.error_hook").install_error_hook()
    module.main() if ours else module.cli_main()


def run(command: str, *args: object, log: Path, ranks: int = 1, before: Callable[[], None] | None = None) -> str:
    """As ``start``, to its end, which has to be a good one; returns the first process's output."""
    job = start(command, *args, log=log, ranks=ranks, before=before)
    statuses = job.wait()
    if any(statuses):
        sys.exit(f"{command} ended with {statuses}:\n{job.text()[-3000:]}")
    return job.text()


def together(ranks: int) -> list[object]:
    """Options that make one run of several processes."""
    if ranks == 1:
        return []
    options = ["--distributed-world-size", ranks, "--distributed-rank", RANK, "--distributed-backend", "gloo"]
    return [*options, "--distributed-init-method", "env://", "--distributed-no-spawn"]


def prepare(
    folder: Path, sentences: int = 120, task: str = "translation_mos", like: Path | None = None
) -> tuple[Path, Path]:
    """Binarised sentences of letters and a search space: (data folder, space file). ``like``: a data folder whose
    dictionary is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(5)
    for split, count in (("train", sentences), ("valid", 17), ("test", 12)):
        pairs = [[draw.choice("abcdefgh") for _ in range(draw.randint(2, 7))] for _ in range(count)]
        (folder / f"{split}.xx").write_text("".join(" ".join(words) + "\n" for words in pairs))
        (folder / f"{split}.yy").write_text("".join(" ".join(w.upper() for w in words) + "\n" for words in pairs))
    translates = task == "translation_mos"
    end = "" if translates else ".yy"
    prefixes = [x for split in ("train", "valid", "test") for x in (f"--{split}pref", folder / f"{split}{end}")]
    kind = ["-s", "xx", "-t", "yy", "--joined-dictionary"] if translates else ["--only-source"]
    if like is not None:
        kind += ["--srcdict", like / ("dict.xx.txt" if translates else "dict.txt")]
    run("preprocess", *kind, *prefixes, "--destdir", folder / "bin", log=folder / "preprocess.log")
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACES[task]))
    return folder / "bin", folder / "space.yaml"


# of each task: the model, and how long sentences may be
_MODELS = {
    "translation_mos": [
        "--arch",
        "transformer_mos",
        "--share-all-embeddings",
        "--max-source-positions",
        64,
        "--max-target-positions",
        64,
    ],
    "language_modeling_mos": [
        "--arch",
        "transformer_lm_mos",
        "--share-decoder-input-output-embed",
        "--sample-break-mode",
        "eos",
        "--tokens-per-sample",
        64,
    ],
    "masked_lm_mos": [
        "--arch",
        "roberta_mos",
        "--sample-break-mode",
        "eos",
        "--tokens-per-sample",
        64,
        "--mask-prob",
        0.4,
    ],
}


def training(data: Path, space: Path, save_dir: Path, *options: object, task: str = "translation_mos") -> list[object]:
    """Arguments of fairseq-train for a small supernet, by sandwich; later options win."""
    plugin = ["--user-dir", USER_DIR, "--task", task, *_MODELS[task], "--search-space", space]
    plugin += ["--subnet-sampling", "sandwich"]
    loss = ["--criterion", "label_smoothed_cross_entropy_mos", "--label-smoothing", 0.1, "--max-tokens", 160]
    optimizer = ["--optimizer", "adam", "--lr", 0.01, "--clip-norm", 1.0, "--seed", moved(1)]
    log = ["--log-format", "json", "--log-interval", 1, "--no-progress-bar", "--num-workers", 0]
    return [data, *plugin, *loss, *optimizer, *log, "--save-dir", save_dir, *options]
