"""ScaledAdam against its formulas, its invariances, and what gets no gradient."""

import copy
import io

import pytest
import torch
from omegaconf import OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.optim import ScaledAdam, ScaledAdamConfig
from tests import seeds
from tests.helpers import supernet

SHAPES = ((5, 3), (7,), (1,), (2, 4), ())


def optimizer(params, **options) -> ScaledAdam:
    names = {f"scaled_adam_{name}": value for name, value in options.items()}
    cfg = ScaledAdamConfig(**{"lr": [0.04], "fp16": False, "bf16": False, **names})
    return ScaledAdam(OmegaConf.structured(cfg), params)


def parameters(shapes=SHAPES) -> list[torch.nn.Parameter]:
    torch.manual_seed(seeds.moved(1))
    return [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]


def gradients(params, steps: int) -> list[list[torch.Tensor]]:
    """For each step and parameter. Some steps have gradients that are ten times as large, which are clipped."""
    generator = torch.Generator().manual_seed(seeds.moved(2))
    draw = lambda p: torch.randn(p.shape, generator=generator, dtype=p.dtype)  # noqa: E731
    return [[draw(p) * (10 if step % 7 == 5 else 1) for p in params] for step in range(steps)]


def run(mine, params, some) -> None:
    """A step for each list of gradients; None is missing."""
    for step in some:
        for p, grad in zip(params, step, strict=True):
            p.grad = None if grad is None else grad.clone()
        mine.step()


def reference(values, steps, lr=0.04, clip=2.0, b1=0.9, b2=0.98, eps=1e-8):
    """The values after all steps by the paper's formulas, a tensor at a time, and how many steps were clipped."""
    known = [{"v": 0, "d": 0, "u": 0, "s": [], "r": p.square().mean().sqrt()} for p in values]
    norms, limit, clipped = [], None, 0
    for t, grads in enumerate(steps):
        scale = 1
        if t:
            parts = [g * (0.1 if g.numel() == 1 else k["r"]) for g, k in zip(grads, known, strict=True)]
            norm = sum(float((part**2).sum()) for part in parts) ** 0.5
            norms.append(norm)
            if t in (10, 20, 40):
                limit = 2 * clip * sorted(norms)[{10: 4, 20: 10, 40: 20}[t]]
            elif t % 100 == 0:
                limit = clip * sorted(norms[-100:])[50]
            if limit is not None and limit < norm:
                scale, clipped = limit / norm, clipped + 1
        for i, (g, k) in enumerate(zip(grads, known, strict=True)):
            p, g = values[i], g * scale
            k["v"] = b2 * k["v"] + (1 - b2) * g**2
            corrected = k["v"] / (1 - b2 ** (t + 1)) if 1 - b2 ** (t + 1) < 0.99 else k["v"]
            step = -lr * g / (corrected**0.5 + eps)
            if p.numel() == 1:
                step = step * 0.1
            else:
                k["s"].append(float((p * g).sum()))
                growth = 0.0
                if t % 4 == 3:
                    k["r"] = p.square().mean().sqrt()
                    last, b = torch.tensor(k["s"][-4:], dtype=p.dtype), b2**4
                    k["u"] = b * k["u"] + (1 - b) * (last**2).mean()
                    growth = -lr * 0.1 * (1 - b ** ((t + 1) // 4)) ** 0.5 * last.sum() / (k["u"] ** 0.5 + eps)
                    growth = max(-0.1, min(0.1, float(growth), float((3 - k["r"]) / k["r"])))
                step = step * max(float(k["r"]), 1e-5) + p * (growth if k["r"] >= 1e-5 else 0)
            k["d"] = b1 * k["d"] + (1 - b1) * step
            values[i] = p + k["d"]
            if p.numel() == 1:
                values[i] = values[i].clamp(-10, 10)
    return values, clipped


@pytest.mark.parametrize("shapes", [SHAPES[:1], SHAPES])
@pytest.mark.parametrize(("clip", "steps"), [(2.0, 100), (2.0, 207), (0.0, 100)])
def test_a_hundred_steps_of_the_formulas(shapes, clip, steps):
    """Of the two norms in the middle the median is the upper one; of ten, as its authors have it, the lower."""
    params = parameters(shapes)
    some = gradients(params, steps)
    if clip:
        expected, clipped = reference([p.detach().clone() for p in params], some, clip=clip)
        assert clipped
    else:
        expected, _ = reference([p.detach().clone() for p in params], some, clip=float("inf"))
    start = copy.deepcopy(params)
    run(optimizer(params, clip=clip), params, some)
    for p, wanted, before in zip(params, expected, start, strict=True):
        torch.testing.assert_close(p.detach(), wanted, atol=1e-12, rtol=1e-12)
        assert not torch.allclose(p, before, atol=1e-3)


def test_sizes_stay_within_their_bounds():
    """Gradients that ask for growth; a tensor of zeros counts as ``min_rms``, and its scale has no step."""
    large, zero = torch.nn.Parameter(torch.full((3, 5), 2.0)), torch.nn.Parameter(torch.zeros(4))
    mine = optimizer([large, zero])
    run(mine, [large, zero], [[-torch.ones(3, 5), -torch.ones(4)]] * 200)
    assert torch.isfinite(zero).all() and 0 < zero.max()
    assert large.max() > 3  # the step of the direction does not know the bound, that of the size does
    assert mine.optimizer.state[large]["rms"] == pytest.approx(large.max().item(), rel=0.2)


def test_a_scaled_parameter_takes_scaled_steps():
    """Of L(p) = f(p / c) the whole path is c times that of f: gradients are 1/c, sizes c. Powers of two are exact."""
    small, large = parameters()[:2], [torch.nn.Parameter(p.detach() * 64) for p in parameters()[:2]]
    some = gradients(small, 30)
    run(optimizer(small, eps=0.0, max_rms=1e9), small, some)
    run(optimizer(large, eps=0.0, max_rms=1e9), large, [[g / 64 for g in step] for step in some])
    for p, q in zip(small, large, strict=True):
        assert torch.equal(p * 64, q)


def test_what_got_no_gradient_stays_with_all_that_is_known_of_it():
    params = parameters()
    mine, some = optimizer(params, clip=0.0), gradients(params, 12)
    run(mine, params, some[:6])  # in the midst of a period
    before = copy.deepcopy([params[0].detach(), mine.optimizer.state[params[0]]])
    run(mine, params, [[None, *step[1:]] for step in some[6:9]])
    after = [params[0].detach(), mine.optimizer.state[params[0]]]
    assert torch.equal(before[0], after[0]) and before[1].keys() == after[1].keys()
    for name, value in before[1].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(after[1][name])), name
    run(mine, params, some[9:])  # and goes on as if the three had not been
    alone = parameters()[:1]
    run(optimizer(alone, clip=0.0), alone, [step[:1] for step in some[:6] + some[9:]])
    assert torch.equal(alone[0], params[0])


@pytest.mark.parametrize("shape", [(3, 2, 5, 4), (3, 2, 5), (3, 1)])
def test_experts_are_tensors_of_their_own(shape):
    (stack,) = parameters([shape])
    stack.stacked_experts = True
    apart = [torch.nn.Parameter(expert.detach().clone()) for expert in stack]
    some = gradients([stack], 60)
    run(optimizer([stack]), [stack], some)
    run(optimizer(apart), apart, [list(step[0]) for step in some])
    torch.testing.assert_close(stack.detach(), torch.stack([p.detach() for p in apart]), atol=1e-12, rtol=1e-12)
    (other,) = parameters([shape])
    run(optimizer([other]), [other], some)
    assert not torch.allclose(other, stack, atol=1e-4)


def test_a_supernet_says_which_its_experts_are():
    model = supernet()
    marked = {name for name, p in model.named_parameters() if getattr(p, "stacked_experts", False)}
    assert "encoder.layers.0.fc1.weight" in marked and "encoder.embed_tokens.weight" not in marked
    assert all(dict(model.named_parameters())[name].dim() in (3, 4) for name in marked)


def test_state_goes_on_bit_equal_in_mid_period():
    straight, first, second = parameters(), parameters(), parameters()
    some = gradients(straight, 31)
    run(optimizer(straight), straight, some)
    mine = optimizer(first)
    run(mine, first, some[:22])
    for p, q in zip(second, first, strict=True):
        p.data.copy_(q.data)
    buffer = io.BytesIO()
    torch.save(mine.state_dict(), buffer)
    buffer.seek(0)
    later = optimizer(second)
    later.load_state_dict(torch.load(buffer), later.optimizer_config)
    run(later, second, some[22:])
    assert all(torch.equal(a, b) for a, b in zip(straight, second, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": "(0.9)"}, "scaled_adam_betas is"),
        ({"clip": -1.0}, "scaled_adam_clip is -1"),
        ({"size_period": 0}, "scaled_adam_size_period is 0"),
        ({"clip_period": 0}, "scaled_adam_clip_period is 0"),
        ({"max_rms": float("nan")}, "scaled_adam_max_rms is nan"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        optimizer(parameters(), **options)


def test_half_precision_and_another_period_are_refused():
    with pytest.raises(InputError, match="scaled_adam with --bf16"):
        ScaledAdam(OmegaConf.structured(ScaledAdamConfig(lr=[0.1], fp16=False, bf16=True)), parameters())
    params = parameters()
    with pytest.raises(InputError, match="scaled_adam_size_period is 3: the checkpoint's is 4"):
        optimizer(params, size_period=3).load_state_dict(optimizer(params).state_dict())
