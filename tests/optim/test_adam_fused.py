"""The fused Adam takes the steps of fairseq's, leaves what got no gradient, and refuses bad betas."""

import copy

import pytest
import torch
from fairseq.optim.adam import Adam
from omegaconf import OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.optim import AdamFused, AdamFusedConfig
from tests.seeds import moved


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(moved(1))
    return [torch.nn.Parameter(torch.randn(shape)) for shape in ((5, 3), (7,), (2, 4))]


def optimizer(params, **options) -> AdamFused:
    cfg = AdamFusedConfig(**{"adam_betas": "(0.9, 0.98)", "lr": [2e-3], **options})
    return AdamFused(OmegaConf.structured(cfg), params)


def test_steps_equal_fairseqs():
    ours, theirs = parameters(), parameters()
    mine = optimizer(ours, weight_decay=0.1)
    other = Adam(theirs, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.1)
    for step in range(6):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.set_lr(2e-3 / (step + 1))
        other.param_groups[0]["lr"] = 2e-3 / (step + 1)
        mine.step(), other.step()
    for a, b, start in zip(ours, theirs, parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(a, start, atol=1e-4)


def test_what_got_no_gradient_does_not_move():
    params = parameters()
    mine = optimizer(params, weight_decay=0.1)
    before = copy.deepcopy(params)
    for present in (params, params[:2]):
        for p in params:
            p.grad = None
        for p in present:
            p.grad = torch.ones_like(p)
        mine.step()
        if present is params:
            before = copy.deepcopy(params)
    assert torch.equal(params[2], before[2]) and not torch.equal(params[0], before[0])


def test_state_goes_on_after_saving():
    straight, first, second = parameters(), parameters(), parameters()
    gradients = [[torch.randn_like(p) for p in straight] for _ in range(4)]

    def run(mine, params, some):
        for step in some:
            for p, grad in zip(params, step, strict=True):
                p.grad = grad.clone()
            mine.step()

    run(optimizer(straight), straight, gradients)
    mine = optimizer(first)
    run(mine, first, gradients[:2])
    for p, q in zip(second, first, strict=True):
        p.data.copy_(q.data)
    later = optimizer(second)
    later.load_state_dict(copy.deepcopy(mine.state_dict()))
    run(later, second, gradients[2:])
    assert all(torch.equal(a, b) for a, b in zip(straight, second, strict=True))


@pytest.mark.parametrize("betas", ["(0.9)", "0.9, 1.0", "print(1)", "(0.9, 0.98, 0.99)", "('a', 'b')"])
def test_bad_betas(betas):
    with pytest.raises(InputError, match="adam_betas is"):
        optimizer(parameters(), adam_betas=betas)
