"""What can go wrong when a supernet's training is started in several processes, told before it does."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch.distributed
from fairseq.distributed import utils as distributed_utils

from mos_fairseq.errors import InputError

DDP_BACKENDS = ("pytorch_ddp", "c10d", "legacy_ddp", "no_c10d")


def data_parallel_rank() -> int:
    """This process's number among those that train together; 0 where it trains alone."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 0
    return distributed_utils.get_data_parallel_rank()


def data_parallel_size() -> int:
    """The number of processes that train together."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    return distributed_utils.get_data_parallel_world_size()


def largest_of_ranks(value: int) -> int:
    """Return the largest of the values that the processes that train together give; each has to call it."""
    if data_parallel_size() == 1:
        return value
    group = distributed_utils.get_data_parallel_group()
    device = torch.device("cuda") if torch.distributed.get_backend(group) == "nccl" else torch.device("cpu")
    told = torch.tensor(value, device=device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX, group=group)
    return int(told)


def raise_together(problem: str | None) -> None:
    """Raise InputError in all processes that train together if any of them has a ``problem``; each has to call this.
    Otherwise the others would wait for that one."""
    problems: list[str | None] = [problem]
    if data_parallel_size() > 1:
        group = distributed_utils.get_data_parallel_group()
        problems = [None] * data_parallel_size()
        torch.distributed.all_gather_object(problems, problem, group=group)
    for found in problems:
        if found is not None:
            raise InputError(found)


def of_first_rank(values: Sequence[float], device: torch.device) -> list[float]:
    """The ``values`` of the first of the processes that train together, in all of them.

    Args:
        device: on which the processes talk.
    """
    if data_parallel_size() == 1:
        return list(values)
    told = torch.tensor(values, dtype=torch.float64, device=device)
    distributed_utils.broadcast(told, 0, distributed_utils.get_data_parallel_group())
    return told.tolist()


def check_launch(ddp_backend: str) -> None:
    """To be called before a supernet is trained.

    Raises:
        InputError: a launcher started several processes that know nothing of each other: every one would train alone
            and write the same checkpoints; or the backend shards or averages weights, which supernets do not support.
    """
    started = int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1
    together = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if started > 1 and together == 1:
        raise InputError(
            f"distributed_world_size is 1, but a launcher started {started} processes (WORLD_SIZE), each of which "
            "would train alone: start with examples/tools/train_parallel.sh, or add "
            "--distributed-world-size $WORLD_SIZE --distributed-rank $RANK "
            "--distributed-init-method env:// --distributed-no-spawn"
        )
    if together > 1 and ddp_backend not in DDP_BACKENDS:
        raise InputError(f"ddp_backend is {ddp_backend}: allowed for supernets are {', '.join(DDP_BACKENDS)}")
