"""The fused Adam takes the steps of fairseq's, leaves what got no gradient, and refuses bad betas."""

import copy
import io

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.optim.adam import Adam, FairseqAdam, FairseqAdamConfig
from omegaconf import OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.optim import AdamFused, AdamFusedConfig
from tests import seeds


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(seeds.moved(1))
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


def moved(mine, params, gradients) -> list[torch.nn.Parameter]:
    """The parameters after a step for each list of gradients."""
    for step in gradients:
        for p, grad in zip(params, step, strict=True):
            p.grad = grad.clone()
        mine.step()
    return params


def fairseqs(params) -> FairseqAdam:
    cfg = FairseqAdamConfig(adam_betas="(0.9, 0.98)", lr=[2e-3], tpu=False)
    return FairseqAdam(OmegaConf.structured(cfg), params)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(optimizer, fairseqs), (fairseqs, optimizer)])
def test_adam_goes_on_where_the_other_stopped(before, after):
    """Steps as if there had been one optimizer; a state that was forgotten would show (see the last line)."""
    straight = parameters()
    gradients = [[torch.randn_like(p) for p in straight] for _ in range(6)]
    expected = moved(before(straight), straight, gradients)
    first = parameters()
    mine = before(first)
    moved(mine, first, gradients[:4])
    second, forgetful = copy.deepcopy(first), copy.deepcopy(first)
    later = after(second)
    assert type(later).__name__ == type(mine).__name__  # fairseq asks this
    buffer = io.BytesIO()
    torch.save(mine.state_dict(), buffer)
    buffer.seek(0)
    later.load_state_dict(torch.load(buffer), later.optimizer_config)
    for p, q in zip(expected, moved(later, second, gradients[4:]), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(expected[0], moved(after(forgetful), forgetful, gradients[4:])[0], atol=1e-4)
    steps = [moments["step"] for moments in later.state_dict()["state"].values()]
    assert steps == [6, 6, 6] and all(isinstance(step, int) for step in steps)


def test_a_checkpoint_of_the_first_version_is_upgraded():
    """It holds torch's own state, under the name of the class."""
    params = parameters()
    mine = optimizer(params)
    moved(mine, params, [[torch.ones_like(p) for p in params]])
    history = {"criterion_name": "", "optimizer_name": "AdamFused", "lr_scheduler_state": {}, "num_updates": 1}
    old = {"optimizer_history": [history], "extra_state": {"train_iterator": {}}, "cfg": None, "args": None}
    old["last_optimizer_state"] = mine.optimizer.state_dict() | {"loss_scale": 4}
    state = checkpoint_utils._upgrade_state_dict(copy.deepcopy(old))
    assert state["optimizer_history"][-1]["optimizer_name"] == "FairseqAdam"
    assert state["last_optimizer_state"].keys() == {"state", "param_groups", "loss_scale"}
    assert [moments["step"] for moments in state["last_optimizer_state"]["state"].values()] == [1, 1, 1]
    assert state["last_optimizer_state"]["param_groups"] == fairseqs(parameters()).state_dict()["param_groups"]
    other = torch.optim.SGD(params, lr=1.0).state_dict()
    state = checkpoint_utils._upgrade_state_dict(copy.deepcopy(old | {"last_optimizer_state": other}))
    assert state["last_optimizer_state"] == other


def test_half_precision_moments_are_refused():
    state = {"state": {0: {"step": 1, "exp_avg_scale": 1.0}}, "param_groups": []}
    with pytest.raises(InputError, match="--fp16-adam-stats"):
        optimizer(parameters()).load_state_dict(state)


@pytest.mark.parametrize("betas", ["(0.9)", "0.9, 1.0", "print(1)", "(0.9, 0.98, 0.99)", "('a', 'b')"])
def test_bad_betas(betas):
    with pytest.raises(InputError, match="adam_betas is"):
        optimizer(parameters(), adam_betas=betas)
