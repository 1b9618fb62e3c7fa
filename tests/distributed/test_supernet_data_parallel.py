"""The gradients of processes that train together; what starts such a training wrongly is told."""

from __future__ import annotations

import pytest
import torch
import torch.distributed
from torch import nn

from mos_fairseq.distributed import SupernetDataParallel, check_launch, data_parallel_rank
from mos_fairseq.distributed.supernet_data_parallel import _buckets
from mos_fairseq.errors import InputError
from mos_fairseq.tasks import supernet_task as tasks


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
