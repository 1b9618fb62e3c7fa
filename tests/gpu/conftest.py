"""Tests that need a GPU. Elsewhere they are deselected, unless MOS_TEST_CUDA=pretended runs them on a simulated one."""

from __future__ import annotations

import os

import pytest
import torch

from tests.cli.conftest import files, joined, supernet, text  # noqa: F401  fixtures
from tests.pretend_cuda import pretend_cuda

PRETENDED = os.environ.get("MOS_TEST_CUDA") == "pretended"


@pytest.fixture(autouse=True)
def gpu():
    """One GPU for this process."""
    if PRETENDED:
        with pretend_cuda():
            yield
    else:
        yield


@pytest.fixture
def real():
    """Skip a test that is meaningless without a real GPU."""
    if PRETENDED or not torch.cuda.is_available():
        pytest.skip("the GPU is a pretended one")
