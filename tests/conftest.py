"""Shared by all tests: a small, repeatable environment."""

import gc
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

# before torch and fairseq are imported: the collector would look through their many objects again and again
gc.set_threshold(20_000, 20, 20)
# the commands that tests start inherit both
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

# torch and numpy are imported where they are needed: the process that hands out the tests needs neither
from tests.commands import commands  # noqa: E402, F401  a fixture
from tests.seeds import moved  # noqa: E402


@pytest.fixture(autouse=True)
def random_state() -> None:
    """Seed every test's random numbers, independent of tests before it in its process."""
    import numpy as np
    import torch

    random.seed(moved(1))
    np.random.seed(moved(1))
    torch.manual_seed(moved(1))


@pytest.fixture(scope="session", autouse=True)
def compositions() -> None:
    """fairseq's configurations are composed from what was composed before."""
    if "fairseq" in sys.modules:
        from tests import composition

        composition.remember()


@pytest.fixture
def use_kernels() -> Iterator[Callable[..., None]]:
    """``use_kernels(packed_rows=1, …)``: these thresholds of :class:`KernelPolicy`, on any processor, for one test."""
    from mos_fairseq.modules import kernels

    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(kernels.using(replace(kernels.OTHER, **changes)))


_BUILDING = {"benchmark", "config", "export", "models", "modules", "tasks", "tests", "warm_start"}


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what the inner loop leaves out: tests that start commands, and all but a few cases of those that
    build models. Tests that need a GPU are deselected without one.

    Files that start commands come first, so that no process is left with one of them in the end.
    """
    need_gpu = [item for item in items if item.path.parent.name == "gpu"]
    if need_gpu and os.environ.get("MOS_TEST_CUDA") != "pretended":
        import torch

        if not torch.cuda.is_available():
            config.hook.pytest_deselected(items=need_gpu)
            items[:] = [item for item in items if item not in need_gpu]
    starting = [item for item in items if "commands" in getattr(item, "fixturenames", ())]
    for item in (*starting, *_further_cases(items)):
        item.add_marker(pytest.mark.slow)
    first = {item.path for item in starting}
    items.sort(key=lambda item: item.path not in first)


def pytest_collection_finish() -> None:
    """Keep the collector away from what every test needs: without this it takes a tenth of the time."""
    gc.collect()
    gc.freeze()


def _further_cases(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the cases of each parametrized test in folders that build models, but for the first and the last one."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if hasattr(item, "callspec") and item.path.parent.name in _BUILDING:
            cases.setdefault(item.nodeid.split("[")[0], []).append(item)
    return [case for found in cases.values() for case in found[1:-1]]
