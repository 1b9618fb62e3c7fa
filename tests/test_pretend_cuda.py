"""The simulated GPU refuses what a GPU refuses, computes the CPU's results, and reports host waits."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.pretend_cuda import CUDA, pretend_cuda

MIXED = "Expected all tensors to be on the same device"


@pytest.fixture
def waits():
    with pretend_cuda() as found:
        yield found


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.cat([x, torch.ones(3)]),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),  # single numbers are welcome by element only
        lambda x: F.linear(x, torch.ones(2, 3)),
        lambda x: x.index_select(0, torch.tensor([1])),
        lambda x: F.embedding(torch.tensor([1]), x[:, None]),
        lambda x: torch._foreach_add([x, x], [x, torch.ones(3)]),
        lambda x: x.masked_fill(torch.tensor([True, False, True]), 0.0),
    ],
)
def test_two_devices_do_not_mix(waits, operation):
    x = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match=MIXED):
        operation(x)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=MIXED):
        operation(x)


def test_tensors_are_where_they_say(waits):
    made = torch.ones(2, device="cuda"), torch.tensor([1.0, 2.0], device=CUDA)
    for x in (*made, torch.ones(2).to("cuda"), torch.ones(2).cuda()):
        assert x.device == CUDA and x.is_cuda and not x.is_cpu
        assert (x * torch.tensor(2.0)).is_cuda and x.new_zeros(3).is_cuda and torch.zeros_like(x).is_cuda
        assert x.cpu().is_cpu and x.to(torch.ones(1)).is_cpu and torch.ones(1).to(x).is_cuda
        with pytest.raises(TypeError, match="cuda:0"):
            x.numpy()
    assert torch.ones(2).is_cpu and torch.arange(3).is_cpu


def test_writing_in_place_reaches_all_views(waits):
    x = torch.zeros(4, 3, device="cuda")
    row, flat = x[1], x.view(-1)
    row.add_(1)
    x[[0, 2]] = 2.0
    flat[-1] = 5.0
    x.data[3, 0] = 7.0
    assert x.tolist() == [[2, 2, 2], [1, 1, 1], [2, 2, 2], [7, 0, 5]]
    x.resize_(2, 3)
    assert x.shape == (2, 3) and (x + torch.ones(2, 3, device="cuda")).shape == (2, 3)
    assert copy.deepcopy(x).is_cuda


def test_gradients_are_those_of_the_cpu():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.LayerNorm(7), nn.Linear(7, 3))
    x, target = torch.randn(4, 5), torch.tensor([0, 2, 1, 1])
    F.cross_entropy(module(x), target).backward()
    with pretend_cuda():
        other = copy.deepcopy(module).to("cuda")
        other.zero_grad(set_to_none=True)
        before = [id(p) for p in other.parameters()]
        other = other.to("cuda", torch.float64)
        assert [id(p) for p in other.parameters()] == before  # shared and optimized parameters stay what they are
        optimizer = torch.optim.AdamW(other.parameters(), fused=True)
        F.cross_entropy(other(x.to("cuda", torch.float64)), target.to("cuda")).backward()
        optimizer.step()
    for mine, theirs in zip(other.parameters(), module.parameters(), strict=True):
        assert mine.grad.device == CUDA
        torch.testing.assert_close(mine.grad.values.float(), theirs.grad)
        assert not torch.equal(mine.values.float(), theirs)


@pytest.mark.parametrize(
    ("operation", "count"),
    [
        (lambda x: x + 1, 0),
        (lambda x: x.to("cuda"), 0),
        (lambda x: torch.ones(3).to("cuda", non_blocking=True), 0),
        (lambda x: x.to("cpu", non_blocking=True), 0),
        (lambda x: torch.ones(3).to("cuda"), 1),
        (lambda x: torch.tensor(3, device="cuda"), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.sum().item(), 1),
        (lambda x: float(x.sum()), 1),
        (lambda x: bool((x > 0).any()), 1),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: (x > 0).nonzero(), 1),
        (lambda x: torch.cuda.synchronize(), 1),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_waits_are_written_down(waits, operation, count, inference):
    x = torch.ones(3, device="cuda")
    waits.clear()
    with torch.inference_mode(inference):
        operation(x)
    assert len(waits) == count


def test_copies_are_told_from_waits(waits):
    x = torch.ones(3).to("cuda", non_blocking=True)
    x.copy_(torch.ones(3))
    assert [copy.what for copy in waits.copies] == ["copy to the device"] == [wait.what for wait in waits]


def test_autocast_is_that_of_cuda(waits):
    x, weight = torch.randn(3, 4, device="cuda"), nn.Parameter(torch.randn(5, 4, device="cuda"))
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cuda", dtype):
            y = F.linear(x, weight)
            assert y.dtype == dtype and F.softmax(y, -1).dtype == torch.float32
        y.sum().backward()
        assert weight.grad.dtype == torch.float32


def test_afterwards_there_is_no_gpu():
    before = torch.cuda.is_available()
    with pretend_cuda():
        assert torch.cuda.is_available() and torch.cuda.device_count() == 1
    assert torch.cuda.is_available() == before
