"""Two processes that compute together, and the tasks of tests/tasks."""

from __future__ import annotations

import datetime
import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed
from fairseq.distributed import utils as distributed_utils

from tests.config.conftest import data, monolingual  # noqa: F401
from tests.tasks.conftest import make_model, make_task  # noqa: F401


def _rank(rank: int, folder, scenario: Callable[[int], Any]) -> Any:
    store, timeout = f"file://{folder}/store", datetime.timedelta(seconds=120)
    torch.distributed.init_process_group("gloo", init_method=store, world_size=2, rank=rank, timeout=timeout)
    try:
        found = scenario(rank)
        torch.save(found, folder / f"{rank}.pt")
        return found
    finally:
        torch.distributed.destroy_process_group()
        vars(distributed_utils.get_global_group).pop("_global_group", None)  # fairseq keeps it


@pytest.fixture
def both(tmp_path):
    """What ``scenario(rank)`` returns in this process, rank 0, and in a forked one."""

    def run(scenario: Callable[[int], Any]) -> tuple[Any, Any]:
        other = multiprocessing.get_context("fork").Process(target=_rank, args=(1, tmp_path, scenario))
        other.start()
        found = _rank(0, tmp_path, scenario)
        other.join(120)
        assert other.exitcode == 0
        return found, torch.load(tmp_path / "1.pt", weights_only=False)

    return run
