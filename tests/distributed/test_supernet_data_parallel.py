"""Data parallel training equals a single process's; what starts it wrongly is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import nn

from mos_fairseq.distributed import SupernetDataParallel, check_launch, data_parallel_rank
from mos_fairseq.distributed.supernet_data_parallel import _buckets
from mos_fairseq.errors import InputError
from mos_fairseq.tasks import supernet_task as tasks
from tests.cli.conftest import training

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("task", ["translation_mos", "masked_lm_mos"])  # the script knows language_modeling_mos, too
def test_equals_a_single_process(commands, tmp_path, task):
    """Two processes, 6 updates: sandwich; and different subnets on each, resumed in the middle, also in local rounds.

    Of masked language models the second only: the others are of the distribution, which knows no task.
    """
    script = ROOT / "tests" / "data_parallel_table.py"
    done = commands.fork("python", script, "--quick", "--json", "--task", task, cwd=tmp_path)
    rows = [json.loads(line) for line in done.out.splitlines() if line.startswith("[")]
    found = {(backend, sampling): (difference, agree) for _, backend, sampling, _, difference, agree in rows}
    everything = task == "translation_mos"
    assert len(found) == (4 if everything else 2) and all(agree for _, agree in found.values())
    assert found["legacy_ddp", "sandwich, per rank"][0] < 1e-5
    assert found["legacy_ddp", "the same, resumed"][0] == 0
    assert not everything or found["pytorch_ddp", "sandwich"][0] < 1e-5
    assert not everything or found["pytorch_ddp", "local, resumed"][0] == 0


@pytest.fixture
def group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", world_size=1, rank=0)
    yield torch.distributed.group.WORLD
    torch.distributed.destroy_process_group()


def test_gradients_that_exist_nowhere_stay_missing(group):
    module = nn.ModuleDict({"used": nn.Linear(3, 2), "absent": nn.Linear(3, 2)})
    parallel = SupernetDataParallel(module, group, bucket_mb=1e-6)  # every tensor is a bucket of its own
    assert not hasattr(parallel, "no_sync")  # nothing is sent in the backward pass
    module["used"](torch.ones(4, 3)).sum().backward()
    module["used"].bias.requires_grad_(False)
    before = {name: p.grad.clone() for name, p in module["used"].named_parameters()}
    parallel.all_reduce_grads()
    assert all(torch.equal(p.grad, before[name]) for name, p in module["used"].named_parameters())
    assert all(p.grad is None for p in module["absent"].parameters())


def test_buckets_are_of_one_type_and_bounded():
    sizes = [3, 5, 1, 40, 2, 2]
    grads = [torch.full((n,), i, dtype=torch.float64 if i % 2 else torch.float32) for i, n in enumerate(sizes)]
    buckets = list(_buckets(grads, 24))
    assert sorted(int(grad[0]) for bucket in buckets for grad in bucket) == list(range(6))  # every one once
    for bucket in buckets:
        assert len({grad.dtype for grad in bucket}) == 1
        assert len(bucket) == 1 or sum(grad.numel() * grad.element_size() for grad in bucket) <= 24
    assert [[int(grad[0]) for grad in bucket] for bucket in buckets] == [[0, 2, 4], [1], [3], [5]]


# --- mistakes ---


def test_processes_that_know_nothing_of_each_other_are_refused(monkeypatch, tmp_path):
    """As `torchrun --nproc-per-node 2 --no-python fairseq-train ...` does: two trainings, one save directory."""
    check_launch("pytorch_ddp")
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launch("pytorch_ddp")  # set by something else than a launcher
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(InputError, match=r"started 2 processes.*train_parallel.sh.*--distributed-world-size"):
        check_launch("pytorch_ddp")
    assert data_parallel_rank() == 0


def test_every_training_checks_how_it_was_launched(monkeypatch, make_task, make_model):
    monkeypatch.setattr(tasks, "check_launch", lambda backend: (_ for _ in ()).throw(InputError(f"{backend} checked")))
    task = make_task(ddp_backend="slowmo")
    with pytest.raises(InputError, match="slowmo checked"):
        make_model(task)


def test_other_backends_are_refused(monkeypatch, group):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    for backend in ("pytorch_ddp", "c10d", "legacy_ddp", "no_c10d"):
        check_launch(backend)
    for backend in ("fully_sharded", "slowmo"):
        with pytest.raises(InputError, match=f"ddp_backend is {backend}.*pytorch_ddp, c10d, legacy_ddp"):
            check_launch(backend)


# --- the launcher ---


@pytest.mark.slow
def test_launcher(joined, files, tmp_path):
    """examples/train_parallel.sh: one run, one log, one set of checkpoints."""
    script = [str(ROOT / "examples" / "train_parallel.sh"), "2"]
    short = ["--max-update", 1, "--disable-validation", "--no-epoch-checkpoints"]
    arguments = training(joined, tmp_path / "save dir", *short, space=files / "space.yaml")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = ["bash", *script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("| train_inner | ") == 1 and "training on 2 devices" in done.stdout
    assert (tmp_path / "save dir" / "checkpoint_last.pt").exists()
    done = subprocess.run(["bash", script[0], "--arch"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "'--arch': allowed are whole numbers from 1" in done.stderr
