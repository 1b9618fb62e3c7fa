"""Run fairseq's commands, and programs, each in its own forked process, without importing everything again.

``commands.py`` starts the server, which imports fairseq and other slow packages, but not mos_fairseq. Requests with
plugin: true go to a fork of it that has imported mos_fairseq, too. One request a line on stdin, as JSON {command, args,
cwd, env, stdin, stdout, stderr, threads, cuda, plugin}, where command is null for ``python ARGS``; the answers are two
lines on stdout, the fork's process id and then its exit status.
"""

import gc
import importlib
import json
import logging
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, TextIO

gc.set_threshold(20_000, 20, 20)  # as in conftest.py; forks inherit it
import torch  # noqa: E402

replies = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # fairseq may log there

FAIRSEQ = ("fairseq.checkpoint_utils", "fairseq.options", "fairseq.tasks", "fairseq.trainer")
# every optimizer of torch imports the first; the plots and the predictor need the others
OTHERS = ("torch._dynamo", "sacrebleu", "matplotlib.figure", "matplotlib.backends.backend_agg")
OTHERS += ("plotly.graph_objects", "lightgbm", "pymoo.algorithms.moo.nsga2", "sklearn.model_selection", "ctranslate2")
for name in FAIRSEQ:
    importlib.import_module(name)
for name in OTHERS:
    with suppress(ImportError):  # a command that needs it imports it again, and fails
        importlib.import_module(name)
# hydra's parser, which reads some 300 options in each of fairseq's commands, learns its grammar as it goes
parse = importlib.import_module("hydra.core.override_parser.overrides_parser").OverridesParser.create().parse_overrides
values = ("null", "1", "0.1", "true", "word", "'two words'", "['a,b']", "[0.1,2]", "/path/file.pt", "'{\"key\": 1}'")
parse([f"group.name_{number}={value}" for number, value in enumerate(values)] + ["task=translation", "model._name=x"])
composition = importlib.import_module("tests.composition")
composition.remember(Path(sys.argv[1]))
ended = importlib.import_module("tests.processes").ended
gc.freeze()  # a collection in a fork would copy every page
logging.root.handlers.clear()  # set while fairseq was imported; each command sets its own


_pretended: list = []


def run_command(request: dict) -> None:
    """In the fork: as the console script ``fairseq-COMMAND``, or our own of that name, would."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(request[name], flags, 0o644), number)
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    if request["threads"] is not None:
        torch.set_num_threads(request["threads"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
    if request["cuda"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = request["cuda"]
    if request["cuda"] == "pretended":
        pretended = importlib.import_module("tests.pretend_cuda").pretend_cuda()
        pretended.__enter__()  # to the end of the process
        _pretended.append(pretended)
    command = request["command"]
    if command is None:
        run_python(request["args"])
        return
    ours = command.startswith("mos-")
    sys.argv = [command if ours else f"fairseq-{command}", *request["args"]]
    if request["plugin"]:  # as when a command imports the package
        importlib.import_module("mos_fairseq.noise").leave_out_known()
        hooks = importlib.import_module("mos_fairseq.compat.error_hook")
        hooks.install_error_hook()
        if command == "hydra-train":
            hooks.let_hydra_pass_mistakes()
    if ours:
        module = command.removeprefix("mos-").replace("-", "_")
        importlib.import_module(f"mos_fairseq.cli.{module}").main()
    else:
        importlib.import_module(f"fairseq_cli.{command.replace('-', '_')}").cli_main()


def run_python(words: list[str]) -> None:
    """In the fork: as ``python WORDS`` would."""
    sys.orig_argv = [sys.executable, *words]
    sys.argv = words if words[0] not in ("-c", "-m") else [words[0], *words[2:]]
    sys.path[0] = "" if words[0] in ("-c", "-m") else str(Path(words[0]).parent)  # not the server's folder
    if words[0] == "-c":
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(main))
    elif words[0] == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")


def serve(requests: TextIO, replies: TextIO, plugin: Callable[[str], None] | None) -> None:
    """Answer requests until they end; requests that need the plugin go to ``plugin``."""
    for line in iter(requests.readline, ""):
        request = json.loads(line)
        if request["plugin"] and plugin is not None:
            plugin(line)
            continue
        composition.learn()
        gc.freeze()
        process = os.fork()
        if process == 0:
            os._exit(ended(partial(run_command, request)))
        print(process, file=replies)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), file=replies)


class ForkedTraining:
    """Replaces ``subprocess.Popen`` for standalone trainings: a fork, which imports nothing again.

    tests/cli/test_finetune.py has a training in a process of its own.
    """

    def __init__(self, command: list[str], stdin: int, stdout: IO, stderr: IO, env: dict, pass_fds: list[int]) -> None:
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(ended(partial(self.train, *command[command.index("-m") + 1 :], log=stdout, env=env)))

    @staticmethod
    def train(module: str, *args: str, log: IO, env: dict[str, str]) -> None:
        logging.root.handlers.clear()
        for number in (1, 2):
            os.dup2(log.fileno(), number)
        os.environ.update(env)
        torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
        program = importlib.import_module(module)
        sys.argv = [str(program.__file__), *args]
        program.main()

    def poll(self) -> int | None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.005)
        return self.status


class Plugin:
    """A fork that has imported mos_fairseq, from its first request on."""

    def __init__(self) -> None:
        self.requests: TextIO | None = None

    def __call__(self, line: str) -> None:
        if self.requests is None:
            self.start()
        assert self.requests is not None
        print(line, end="", file=self.requests, flush=True)
        for _ in range(2):
            print(self.replies.readline(), end="", file=replies)

    def start(self) -> None:
        (reads, requests), (answers, writes) = os.pipe(), os.pipe()
        if os.fork() == 0:
            os.close(requests)
            import mos_fairseq

            for part in pkgutil.walk_packages(mos_fairseq.__path__, "mos_fairseq."):
                with suppress(ImportError):  # of an optional package
                    importlib.import_module(part.name)
            training = importlib.import_module("mos_fairseq.standalone.training")
            if os.environ.get("OMP_NUM_THREADS") == "1":  # a fork of a process with OpenMP threads would hang
                training.subprocess = SimpleNamespace(DEVNULL=subprocess.DEVNULL, Popen=ForkedTraining)
            logging.root.handlers.clear()
            gc.freeze()
            serve(os.fdopen(reads), os.fdopen(writes, "w", buffering=1), None)
            os._exit(0)
        os.close(reads)
        os.close(writes)
        self.requests, self.replies = os.fdopen(requests, "w"), os.fdopen(answers)


if __name__ == "__main__":
    print("ready", file=replies)
    serve(sys.stdin, replies, Plugin())
