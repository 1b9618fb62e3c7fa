"""Attention: the fused kernel and the explicit path agree with a loop over heads; caches."""

import math

import pytest
import torch
from torch import nn

from mos_fairseq.modules import MultiheadAttention, kernels
from mos_fairseq.modules.dropout import Dropout
from tests.seeds import moved

D, D_MEMORY, Q, HEADS, B, T, S = 10, 14, 12, 3, 4, 5, 7


def attention(cross: bool, dropout: float = 0.0) -> MultiheadAttention:
    torch.manual_seed(moved(1))
    if cross:
        projections = {"q_proj": nn.Linear(D, Q), "kv_proj": nn.Linear(D_MEMORY, 2 * Q)}
    else:
        projections = {"qkv_proj": nn.Linear(D, 3 * Q)}
    return MultiheadAttention(projections, nn.Linear(Q, D), HEADS, dropout).double()


def inputs(cross: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(moved(2))
    x = torch.randn(B, T, D, dtype=torch.float64, generator=generator)
    return x, torch.randn(B, S, D_MEMORY, dtype=torch.float64, generator=generator) if cross else None


def padding_mask(size: int) -> torch.Tensor:
    """[B, 1, 1, size]: sentence b has size - b real tokens, padded on the left."""
    return torch.stack([torch.arange(size) >= b for b in range(B)])[:, None, None]


def naive(module, x, memory, allowed) -> tuple[torch.Tensor, torch.Tensor]:
    """One sentence, head, query and key at a time; ``allowed(b, t, s)``."""
    if memory is None:
        q, k, v = (x @ module.qkv_proj.weight.T + module.qkv_proj.bias).split(Q, dim=-1)
    else:
        q = x @ module.q_proj.weight.T + module.q_proj.bias
        k, v = (memory @ module.kv_proj.weight.T + module.kv_proj.bias).split(Q, dim=-1)
    width = Q // HEADS
    context, weights = torch.zeros_like(q), torch.zeros(B, HEADS, T, k.size(1), dtype=torch.float64)
    for b in range(B):
        for h in range(HEADS):
            part = slice(h * width, (h + 1) * width)
            for t in range(T):
                keys = [s for s in range(k.size(1)) if allowed(b, t, s)]
                scores = torch.stack([q[b, t, part] @ k[b, s, part] / math.sqrt(width) for s in keys]).softmax(0)
                weights[b, h, t, keys] = scores
                context[b, t, part] = sum(p * v[b, s, part] for p, s in zip(scores, keys, strict=True))
    return context @ module.out_proj.weight.T + module.out_proj.bias, weights


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_a_loop(cross, masked):
    module, (x, memory) = attention(cross), inputs(cross)
    mask = padding_mask(S if cross else T) if masked else None
    actual, probabilities = module(x, memory, mask=mask)
    expected, expected_weights = naive(module, x, memory, lambda b, t, s: not masked or s >= b)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(probabilities(), expected_weights)


def test_causal_attention_equals_a_loop():
    module, (x, _) = attention(False), inputs(False)
    mask = padding_mask(T).flip(-1) & torch.ones(T, T, dtype=torch.bool).tril()
    for options, allowed in (
        ({"is_causal": True}, lambda b, t, s: s <= t),
        ({"mask": mask}, lambda b, t, s: s <= t and s < T - b),
    ):
        actual, probabilities = module(x, **options)
        expected, expected_weights = naive(module, x, None, allowed)
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(probabilities(), expected_weights, atol=1e-6, rtol=1e-5)


def test_dropout_only_while_training():
    module, (x, _) = attention(False, dropout=0.5), inputs(False)
    without = attention(False)(x)[0]
    torch.testing.assert_close(module.eval()(x)[0], without, atol=1e-6, rtol=1e-5)
    actual, probabilities = module.train()(x)
    assert not torch.allclose(actual, without)
    torch.testing.assert_close(probabilities(), module.eval()(x)[1]())  # before dropout


class KnownDropout(Dropout):
    """Dropout by a mask that the test knows."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__(0.5)
        self.mask = mask

    def forward(self, x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
        return x * self.mask


@pytest.mark.parametrize(
    ("cross", "options"),
    [(False, {}), (False, {"is_causal": True}), (False, {"mask": padding_mask(T)}), (True, {"mask": padding_mask(S)})],
)
def test_dropout_is_of_the_probabilities(cross, options):
    module, (x, memory) = attention(cross), inputs(cross)
    keys = S if cross else T
    mask = (torch.rand(B, HEADS, T, keys, generator=torch.Generator().manual_seed(moved(3))) < 0.5).double() * 2
    module.dropout_module = KnownDropout(mask)
    x.requires_grad_()
    with kernels.using(kernels.OTHER):  # torch's own attention knows no mask of dropout
        trained = module.train()(x, memory, **options)[0]
    (found,) = torch.autograd.grad(trained.square().sum(), x)

    _, probabilities = module.eval()(x, memory, **options)
    v = (module.kv_proj(memory) if cross else module.qkv_proj(x))[..., -Q:].view(B, keys, HEADS, -1).transpose(1, 2)
    context = (probabilities() * mask) @ v
    expected = module.out_proj(context.transpose(1, 2).flatten(2))
    torch.testing.assert_close(trained, expected)
    torch.testing.assert_close(torch.autograd.grad(expected.square().sum(), x)[0], found)


@pytest.mark.parametrize("kind", ["bf16", "autocast"])
def test_probabilities_are_computed_in_full_precision(kind):
    """In bf16, scores would be off by 1/256, and probabilities with them by several per cent; what is left is the
    rounding of the results."""
    module, (x, _) = attention(False, dropout=0.5), inputs(False)
    module.qkv_proj = nn.Identity()
    x = (torch.randn(B, T, 3 * Q, generator=torch.Generator().manual_seed(moved(4))) * 4).bfloat16()
    expected = module.train()(x.double())[1]()
    with torch.autocast("cpu", enabled=kind == "autocast"):
        found = module.float().to(torch.bfloat16 if kind == "bf16" else torch.float32)(x)[1]()
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=2**-8)


def test_a_masked_key_is_not_read_whatever_its_score():
    module, mask = attention(False, dropout=0.5), padding_mask(T)
    module.qkv_proj = nn.Identity()
    x = torch.full((B, T, 3 * Q), 100.0, dtype=torch.float64)
    x[:, 1:, :Q] = x[:, 1:, Q : 2 * Q] = 0.01
    probabilities = module.train()(x, mask=mask)[1]()
    assert (probabilities.masked_select(~mask) == 0).all()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(B, HEADS, T, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_a_query_that_may_read_nothing_is_finite(dtype):
    module, (x, _) = attention(False, dropout=0.5).to(dtype), inputs(False)
    x = x.to(dtype).requires_grad_()
    y, probabilities = module.train()(x, mask=padding_mask(T) & (torch.arange(B) > 0)[:, None, None, None])
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all() and probabilities().isfinite().all()
    assert x.grad.dtype is y.dtype is probabilities().dtype is dtype


def test_incremental_self_attention_equals_causal():
    module, (x, _) = attention(False).eval(), inputs(False)
    state: dict = {}
    steps = [module(x[:, t : t + 1], is_causal=True, incremental_state=state)[0] for t in range(T)]
    torch.testing.assert_close(torch.cat(steps, 1), module(x, is_causal=True)[0])


def test_cross_attention_projects_the_memory_once():
    module, (x, memory) = attention(True).eval(), inputs(True)
    state: dict = {}
    expected = module(x, memory)[0]
    calls = []
    module.kv_proj.register_forward_hook(lambda *_: calls.append(1))
    steps = [module(x[:, t : t + 1], memory if t == 0 else None, incremental_state=state)[0] for t in range(T)]
    torch.testing.assert_close(torch.cat(steps, 1), expected)
    assert len(calls) == 1


@pytest.mark.parametrize("order", [[2, 0, 1, 3], [3, 1], [1], [0, 0, 1, 1, 2, 2, 3, 3]], ids=str)
@pytest.mark.parametrize("cross", [False, True])
def test_reordered_caches_belong_to_the_reordered_batch(cross, order):
    """Permuted, shrunk (finished sentences leave) and expanded (beams)."""
    module, (x, memory) = attention(cross).eval(), inputs(cross)
    if cross and len(order) == B:
        order = [0, 1, 2, 3]  # the same number of rows: cross-attention counts on beams to stay in their sentence
    state: dict = {}
    for t in range(2):
        module(x[:, t : t + 1], memory, incremental_state=state)
    new_order = torch.tensor(order)
    module.reorder_incremental_state(state, new_order)
    x, memory = x[new_order], None if memory is None else memory[new_order]
    actual = module(x[:, 2:3], None, incremental_state=state)[0]
    torch.testing.assert_close(actual, module(x[:, :3], memory, is_causal=not cross)[0][:, 2:])


def test_reordering_before_the_first_step_does_nothing():
    state: dict = {}
    attention(False).reorder_incremental_state(state, torch.tensor([1, 0]))
    assert state == {}
