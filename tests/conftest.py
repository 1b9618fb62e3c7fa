"""Shared by all tests: a small, repeatable environment."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

# before torch is imported; the commands that tests start inherit both
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

import numpy as np  # noqa: E402
import torch  # noqa: E402

from tests.commands import commands  # noqa: E402, F401  a fixture
from tests.seeds import moved  # noqa: E402


@pytest.fixture(autouse=True)
def random_state() -> None:
    """Seed every test's random numbers, independent of tests before it in its process."""
    random.seed(moved(1))
    np.random.seed(moved(1))
    torch.manual_seed(moved(1))


@pytest.fixture
def use_kernels() -> Iterator[Callable[..., None]]:
    """``use_kernels(packed_rows=1, …)``: these thresholds of :class:`KernelPolicy`, on any processor, for one test."""
    from mos_fairseq.modules import kernels

    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(kernels.using(replace(kernels.OTHER, **changes)))


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that start fairseq's or our commands as slow. Tests that need a GPU are deselected without one.

    Files with slow tests come first, so that no process is left with one of them in the end.
    """
    if os.environ.get("MOS_TEST_CUDA") != "pretended" and not torch.cuda.is_available():
        need_gpu = [item for item in items if item.path.parent.name == "gpu"]
        if need_gpu:
            config.hook.pytest_deselected(items=need_gpu)
            items[:] = [item for item in items if item not in need_gpu]
    for item in items:
        if "commands" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
