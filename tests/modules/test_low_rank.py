"""Experts of low rank: their slices, and merged weights against U(g * (Dx)) beside Wx."""

import pytest
import torch

from mos_fairseq.modules import ElasticLinear, RankRouter, kernels
from tests.seeds import moved

COLUMNS, ROWS, G, E, R = 9, 7, 3, 2, 4
SIZES = [(COLUMNS, ROWS), (5, 7), (9, 3), (4, 6)]


def linear(num_experts: int = E, **options) -> ElasticLinear:
    torch.manual_seed(moved(1))
    made = ElasticLinear(COLUMNS, ROWS, groups=G, num_experts=num_experts, expert_rank=R, **options).double()
    with torch.no_grad():
        made.low_rank.up.normal_()
        made.bias.normal_()
    return made


def shares(kind: str, rows: int) -> torch.Tensor:
    torch.manual_seed(moved(2))
    return torch.rand({"layer": (E,), "rank": (E, R), "neuron": (E, G, rows)}[kind], dtype=torch.float64).softmax(0)


def unmerged(layer: ElasticLinear, x: torch.Tensor, probs: torch.Tensor, rows: int) -> torch.Tensor:
    """Wx + b + sum_e of U_e(g_e * (D_e x)), of each group and row by itself."""
    columns, out = x.size(-1), []
    for g in range(G):
        y = x @ layer.weight[0, g, :rows, :columns].T + layer.bias[0, g, :rows]
        for e in range(E):
            up, down = layer.low_rank.up[e, g, :rows], layer.low_rank.down[e, g, :, :columns]
            gate = probs[e] if probs.dim() == 2 else torch.ones(R, dtype=torch.float64)
            row = {1: lambda e=e: probs[e], 2: lambda: 1.0, 3: lambda e=e, g=g: probs[e, g]}[probs.dim()]()
            y = y + ((x @ down.T) * gate) @ up.T * row
        out.append(y)
    return torch.cat(out, -1)


@pytest.mark.parametrize("kind", ["layer", "rank", "neuron"])
@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize("remade", [1, kernels.NEVER])
def test_merged_equals_unmerged(use_kernels, kind, columns, rows, remade):
    """In evaluation and in training, with all gradients, whether merged weights are held or made again."""
    use_kernels(remade_mixture=remade)
    layer, probs = linear(), shares(kind, rows).requires_grad_()
    layer.set_active_size(columns, rows)
    x = torch.randn(6, columns, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        layer.materialize(probs)
        torch.testing.assert_close(layer(x), unmerged(layer, x, probs, rows), atol=1e-10, rtol=1e-10)
    leaves = [x, probs, *layer.parameters()]
    layer.materialize(probs)
    found = torch.autograd.grad(layer(x).square().sum(), leaves)
    expected = torch.autograd.grad(unmerged(layer, x, probs, rows).square().sum(), leaves)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", ["layer", "rank", "neuron"])
@pytest.mark.parametrize("beside", [False, True])
def test_beside_frozen_weights(monkeypatch, kind, beside):
    """Whether merged or not, gradients are those of the formula; the frozen weights have none."""
    layer, probs = linear(), shares(kind, 6).requires_grad_()
    layer.set_active_size(5, 6)
    layer.weight.requires_grad_(False), layer.bias.requires_grad_(False)
    monkeypatch.setattr(type(layer.low_rank), "is_cheaper_beside", lambda *sizes: beside)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    leaves = [x, probs, *layer.low_rank.parameters()]
    layer.materialize(probs)
    assert (layer._beside is not None) == beside
    y, expected = layer(x), unmerged(layer, x, probs, 6)
    torch.testing.assert_close(y, expected, atol=1e-10, rtol=1e-10)
    found = torch.autograd.grad(y.square().sum(), leaves)
    torch.testing.assert_close(found, torch.autograd.grad(expected.square().sum(), leaves), atol=1e-10, rtol=1e-10)
    layer.release()
    with torch.no_grad():
        layer.materialize(probs)
        assert layer._beside is None
        torch.testing.assert_close(layer(x), expected, atol=1e-10, rtol=1e-10)


def test_when_factors_are_cheaper_than_merging():
    """Beside frozen weights: 6(o+i)ER multiplications a token, or 2oi."""
    low_rank = ElasticLinear(60, 90, num_experts=2, expert_rank=3).low_rank
    assert low_rank.is_cheaper_beside(90, 60) and not low_rank.is_cheaper_beside(90, 22)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_a_slice_of_the_factors_is_the_slice_of_the_experts(columns, rows):
    layer = linear()
    products = layer.low_rank.products()
    assert torch.equal(layer.experts(), layer.weight + products)
    for e in range(E):
        one_hot = torch.eye(E, dtype=torch.float64)[e]
        left, right = layer.low_rank.factors(one_hot, rows, columns)
        torch.testing.assert_close(left @ right, products[e, :, :rows, :columns], atol=1e-12, rtol=1e-12)


def test_a_single_expert_needs_no_router():
    layer = linear(num_experts=1)
    layer.materialize()
    weight = layer.weight[0] + layer.low_rank.up[0] @ layer.low_rank.down[0]
    torch.testing.assert_close(layer._materialized[0], weight.flatten(0, 1), atol=1e-12, rtol=1e-12)
    with pytest.raises(ValueError, match="probs is None"):
        linear().materialize()


def test_it_starts_as_zero_beside_weights_of_the_same_seed():
    torch.manual_seed(moved(3))
    plain, after = ElasticLinear(COLUMNS, ROWS, groups=G), torch.rand(1)
    torch.manual_seed(moved(3))
    layer = ElasticLinear(COLUMNS, ROWS, groups=G, num_experts=E, expert_rank=R)
    assert torch.equal(layer.weight, plain.weight) and torch.equal(torch.rand(1), after)
    low_rank = layer.low_rank
    assert low_rank.is_zero and low_rank.down.abs().max() <= COLUMNS**-0.5 and low_rank.down.abs().min() > 0
    assert not torch.equal(low_rank.down[0], low_rank.down[1])  # copies would part by their shares alone
    torch.manual_seed(moved(4))
    assert not torch.equal(ElasticLinear(COLUMNS, ROWS, expert_rank=R).low_rank.down, low_rank.down[:1, :1])


def test_gates_of_components_mix_experts():
    router = RankRouter([0.5, 0.25], 3, E, R, hidden_dim=8, num_layers=2, dropout=0.0)
    one, other = router(torch.tensor([1.0, 0.5])), router(torch.tensor([0.5, 1.0]))
    assert one.shape == (3, E, R) and one.dtype == torch.float32 and not torch.allclose(one, other)
    torch.testing.assert_close(one.sum(1), torch.ones(3, R))


@pytest.mark.parametrize("routing", ["layer", "rank"])
def test_merged_in_full_precision_under_autocast(routing):
    """bf16 would round the shared weights before the sum: merging 0 then gives other weights."""
    layer, probs = linear().float(), shares(routing, ROWS).float()
    layer.materialize(probs)
    expected = layer._materialized[0]
    with torch.autocast("cpu", torch.bfloat16):
        layer.materialize(probs)
    assert torch.equal(layer._materialized[0], expected)
