"""Linears of two factors: the best approximation of every rank, and a fresh product as spread as a fresh matrix."""

import pytest
import torch

from mos_fairseq.modules.factored_linear import dense, elastic_factors, product, truncated_factors
from mos_fairseq.sizes import LayerSizes
from tests.seeds import moved


@pytest.mark.parametrize("shape", [(33, 20), (12, 37), (9, 9)])
def test_the_error_of_each_rank_is_what_eckart_and_young_say(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(moved(1)), dtype=torch.float64)
    rank = min(shape)
    up, down = truncated_factors(weight, rank)
    torch.testing.assert_close(product(up, down), weight, atol=1e-10, rtol=0)
    values = torch.linalg.svdvals(weight)
    errors = [float((product(up[:, :r], down[:r]) - weight).norm()) for r in range(rank + 1)]
    assert errors[:-1] == pytest.approx([float(values[r:].norm()) for r in range(rank)], abs=1e-10)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-10


def test_factors_may_be_wider_than_the_matrix():
    weight = torch.randn(7, 5, generator=torch.Generator().manual_seed(moved(2)))
    up, down = truncated_factors(weight, 6)
    assert up.shape == (7, 6) and down.shape == (6, 5) and not up[:, 5:].any() and not down[5:].any()
    torch.testing.assert_close(product(up, down), weight, atol=1e-6, rtol=0)


@pytest.mark.parametrize("experts", [{}, {"num_experts": 3}])
def test_a_fresh_product_is_as_spread_as_a_fresh_matrix(experts):
    torch.manual_seed(moved(3))
    factors = elastic_factors(300, 400, 64, **experts)
    merged = factors.up.weight[0, 0] @ factors.down.weight[0, 0]
    wanted = (1 / (3 * 300)) ** 0.5  # of torch's linear
    assert merged.std().item() == pytest.approx(wanted, rel=0.05)  # of 120,000 entries of 64 terms each
    assert factors.down.bias is None and not factors.up.bias.any()


def test_it_computes_the_product():
    torch.manual_seed(moved(4))
    linear = elastic_factors(11, 7, 5)
    linear.down.set_active_size(9, 3)
    linear.up.set_active_size(3, 6)
    x = torch.randn(2, 4, 9)
    weight = linear.up.weight[0, 0, :6, :3] @ linear.down.weight[0, 0, :3, :9]
    torch.testing.assert_close(linear(x), x @ weight.T + linear.up.bias[0, 0, :6])
    plain = torch.nn.Linear(3, 2)
    assert dense(plain)[0] is plain.weight


def test_a_rank_pays_below_the_break_even():
    assert [LayerSizes(512, 2048, {}, rank).rank_pays for rank in (0, 64, 409, 410, 512)] == [False, True, True] + [
        False
    ] * 2
