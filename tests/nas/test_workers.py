"""Evaluations on several workers: each subnet once, even if workers are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch.multiprocessing
from torch.distributed import TCPStore

from mos_fairseq.errors import InputError
from mos_fairseq.nas import workers as workers_module
from mos_fairseq.nas.workers import Workers, launched, serve, started
from tests.helpers import small_space
from tests.processes import until

SPACE = small_space()
SUBNETS = [SPACE.sample_subnet("workers", i) for i in range(9)]


def value(subnet) -> float:
    return sum(subnet.encoder_ffn_embed_dim) + len(subnet.key) / 7


@pytest.fixture
def store():
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def start(store, evaluate, fingerprint="same") -> threading.Thread:
    """A worker with its own connection."""
    connection = TCPStore("127.0.0.1", store.port)
    thread = threading.Thread(target=serve, args=(connection, fingerprint, evaluate), daemon=True)
    thread.start()
    return thread


def test_everything_is_evaluated_once_by_all(store):
    done, meeting = {"here": [], "there": []}, threading.Barrier(2)

    def evaluate_in(name):
        def evaluate(subnet) -> float:
            if not done[name]:
                meeting.wait(60)  # neither does everything before the other has begun
            done[name].append(subnet.key)
            return value(subnet)

        return evaluate

    thread = start(store, evaluate_in("there"))
    with Workers(store, "same", evaluate_in("here")) as workers:
        for subnets in (SUBNETS[:5], SUBNETS[5:], []):
            found = dict(workers.evaluate_all(subnets))
            assert found == {i: value(subnet) for i, subnet in enumerate(subnets)}
    assert sorted(done["here"] + done["there"]) == sorted(subnet.key for subnet in SUBNETS)
    assert done["here"] and done["there"]
    thread.join(5)
    assert not thread.is_alive()


def test_a_lost_workers_task_is_done_here(store, caplog):
    taken = threading.Event()

    def hang(subnet) -> float:
        taken.set()
        time.sleep(1000)
        return 0.0

    def evaluate(subnet) -> float:
        assert taken.wait(20)
        return value(subnet)

    start(store, hang)
    with Workers(store, "same", evaluate, patience=0.2) as workers:
        found = list(workers.evaluate_all(SUBNETS))
    assert sorted(found) == [(i, value(subnet)) for i, subnet in enumerate(SUBNETS)]
    assert "judging its subnet here" in caplog.text


def test_a_workers_error_is_told_here(store):
    called = threading.Event()

    def fail(subnet) -> float:
        called.set()
        raise InputError("its loss is nan")

    def evaluate(subnet) -> float:
        assert called.wait(20)
        return 1.0

    start(store, fail)
    with Workers(store, "same", evaluate) as workers, pytest.raises(InputError, match="its loss is nan"):
        list(workers.evaluate_all(SUBNETS))


def test_a_worker_with_another_checkpoint_is_refused(store):
    with Workers(store, "same", value), pytest.raises(InputError, match=r"differ \(other, not same\)"):
        serve(TCPStore("127.0.0.1", store.port), "other", value)


def test_without_torchrun_nobody_is_launched(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() is None


def _prepare_for_long(rank: int):
    Path(os.environ["REACHED"]).touch()
    time.sleep(100)


@pytest.mark.slow
@pytest.mark.parametrize("prepares", [True, False], ids=["while it prepares", "while it imports"])
def test_a_worker_ends_with_a_search_that_is_killed(tmp_path, prepares):
    """Also before it has connected: it would look for the store for minutes."""
    reached = tmp_path / "reached"
    script = (
        "import time, torch.multiprocessing as m; from tests.nas.test_workers import _prepare_for_long, started\n"
        "with started(1, _prepare_for_long, 1): print(m.active_children()[0].pid, flush=True); time.sleep(100)\n"
    )
    process = {"cwd": Path(__file__).parents[2], "env": os.environ | {"REACHED": str(reached)}}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, **process) as parent:
        child = int(parent.stdout.readline())
        if prepares:
            until(reached.exists, 90)
        parent.kill()

    def state() -> str:
        try:
            return Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "gone"

    until(lambda: state() in ("gone", "Z"), 90)  # the sleep alone takes longer
    assert reached.exists() == prepares


def _hang(rank: int):
    """Stops its own process, as one that waits for a dead disk."""
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.slow
def test_a_worker_that_hangs_does_not_keep_the_search_from_its_end(monkeypatch):
    monkeypatch.setattr(workers_module, "_GRACE", 0.2)
    begin = time.monotonic()
    with started(1, _hang, 1):
        (child,) = torch.multiprocessing.active_children()
        stat = Path(f"/proc/{child.pid}/stat")
        until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", 60)
    assert not child.is_alive() and time.monotonic() < begin + 70
