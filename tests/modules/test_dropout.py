"""Dropout with its own generator of masks."""

import pytest
import torch

from mos_fairseq.modules import Dropout
from tests.seeds import moved


def dropout(p: float) -> Dropout:
    torch.manual_seed(moved(5))
    return Dropout(p).train()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_scale_and_gradient(p):
    x = torch.rand(301, 333).t().add(1).requires_grad_()  # 100 233 numbers, no multiple of four; not contiguous
    y = dropout(p)(x)
    kept = y != 0
    assert y.shape == x.shape
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=0.006)
    torch.testing.assert_close(y[kept], x[kept] / (1 - p))
    y.backward(upstream := torch.rand_like(y))
    torch.testing.assert_close(x.grad, torch.where(kept, upstream / (1 - p), 0))


def test_neighbours_and_repetitions_are_independent():
    module, x = dropout(0.5), torch.ones(1 << 16)
    first, second = module(x) / 2, module(x) / 2
    for shift in (1, 2, 3, 4):  # the four numbers of one draw, and those of the next
        assert (first * first.roll(shift)).mean().item() == pytest.approx(0.25, abs=0.01)
    assert (first * second).mean().item() == pytest.approx(0.25, abs=0.01)
    assert first.view(-1, 4).mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.02)


def test_follows_the_seed():
    x = torch.ones(99)
    assert torch.equal(dropout(0.3)(x), dropout(0.3)(x))


def test_other_shapes_and_ranks_draw_other_masks(monkeypatch):
    """fairseq seeds all processes alike."""
    mine = dropout(0.5)(torch.ones(1 << 14)) / 2
    longer = dropout(0.5)(torch.ones(1 << 15))[: 1 << 14] / 2
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    other = dropout(0.5)(torch.ones(1 << 14)) / 2
    for found in (longer, other):
        assert (mine * found).mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_keeps_the_dtype(dtype):
    y = dropout(0.5)(torch.ones(64, dtype=dtype))
    assert y.dtype == dtype and set(y.tolist()) == {0.0, 2.0}


def test_off_in_evaluation_and_at_rate_zero():
    x = torch.ones(99)
    assert torch.equal(dropout(0.5).eval()(x), x) and torch.equal(dropout(0.0)(x), x)
    retained = dropout(0.5).eval()
    retained.make_generation_fast_(name="", retain_dropout=True)
    assert not torch.equal(retained(x), x)


@pytest.mark.parametrize("p", [0.995, 0.9999923, 0.9999924, 0.99999999, 1.0])
def test_rates_near_one_drop(p):
    """Of a million ones, 1 - p of them are kept, and count 1 / (1 - p)."""
    y = dropout(p)(torch.ones(1 << 20))
    expected = (1 - p) * y.numel()
    assert (y != 0).sum().item() <= expected + 10 * expected**0.5 + 10  # ten standard deviations
    if p < 1:
        torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - p)))
