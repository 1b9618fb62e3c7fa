"""Ranks in a warm start: the stock model at full rank, its best approximation below, and exports of both."""

import logging

import pytest
import torch

from mos_fairseq.errors import InputError
from mos_fairseq.export.stock import stock_checkpoint
from mos_fairseq.models.parameter_summary import parameter_summary
from mos_fairseq.modules import FactoredLinear
from mos_fairseq.modules.factored_linear import product, truncated_factors
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.warm_start import Orders, importance_orders, supernet_from, supernet_orders
from tests.export.test_stock import STATE, rebuilt
from tests.helpers import batch, supernet
from tests.seeds import moved
from tests.spaces import RANKS, SMALL_SPACE
from tests.warm_start.test_warm_start import HEAD_DIM, NOISY, config, stock

FULL = {"encoder_ffn_rank": [24, 10, 4], "decoder_ffn_rank": [24, 11]}
CUT = {"encoder_ffn_rank": [13, 4], "decoder_ffn_rank": [11, 7]}
LEARNED = {"encoder_learned_pos": True, "decoder_learned_pos": True}


@torch.no_grad()
def logits(model) -> torch.Tensor:
    src, prev, target = batch()
    return model(src, src.ne(1).sum(1), prev)[0][target.ne(1)]


@pytest.mark.parametrize("routing", ["none", "neuron"])
def test_full_rank_is_the_stock_model(routing, caplog):
    source = stock(share_all_embeddings=True)
    orders = importance_orders(source.model)
    cfg = config(HEAD_DIM | FULL, mos_routing=routing, num_experts=2, **LEARNED)
    with caplog.at_level(logging.WARNING):
        model = supernet_from(source, cfg, orders, **NOISY)
    assert not [record for record in caplog.records if "ranks" in record.getMessage()]
    torch.testing.assert_close(logits(model), logits(source.model), atol=1e-5, rtol=1e-5)
    twin = model.get_active_subnet()  # factors of full rank take more than the matrix
    assert not any(isinstance(module, FactoredLinear) for module in twin.modules())
    torch.testing.assert_close(logits(twin), logits(model), atol=1e-5, rtol=1e-5)


def test_a_lower_rank_is_the_best_approximation(caplog):
    source = stock(share_all_embeddings=True)
    with caplog.at_level(logging.WARNING):
        model = supernet_from(source, config(HEAD_DIM | CUT, mos_routing="none"), Orders())
    (warned,) = [record.getMessage() for record in caplog.records if "ranks of" in record.getMessage()]
    assert "needs training" in warned
    space = SearchSpace.from_dict(HEAD_DIM | CUT)
    narrow = space.largest().replace(encoder_ffn_rank=4, decoder_ffn_rank=7)
    model.set_active_subnet(narrow)
    with torch.no_grad():
        for side, rank in (("encoder", 4), ("decoder", 7)):
            for layer in getattr(source.model, side).layers:
                for linear in (layer.fc1, layer.fc2):
                    linear.weight.copy_(product(*truncated_factors(linear.weight, rank)))
    torch.testing.assert_close(logits(model), logits(source.model), atol=1e-5, rtol=1e-5)
    twin = model.get_active_subnet()
    assert sum(isinstance(module, FactoredLinear) for module in twin.modules()) == 2 * 5
    torch.testing.assert_close(logits(twin), logits(model), atol=1e-5, rtol=1e-5)
    # stock fairseq has matrices only
    made = rebuilt(stock_checkpoint(STATE, twin))
    assert made.encoder.layers[0].fc1.weight.shape == (33, 24)
    torch.testing.assert_close(logits(made), logits(twin), atol=1e-5, rtol=1e-5)


def test_values_that_are_not_finite_are_refused():
    source = stock()
    source.model.encoder.layers[1].fc2.weight.data[3, 4] = float("nan")
    with pytest.raises(InputError, match="feed-forward matrix has values that are not finite.*nothing is written"):
        supernet_from(source, config(HEAD_DIM | CUT), Orders())


def test_a_matrix_of_zeros_hides_no_loss(caplog):
    source = stock(share_all_embeddings=True)
    source.model.encoder.layers[0].fc1.weight.data.zero_()
    with caplog.at_level(logging.WARNING):
        supernet_from(source, config(HEAD_DIM | CUT), Orders())
    assert [record for record in caplog.records if "ranks of the search space lose" in record.getMessage()]


def test_importance_does_not_depend_on_how_a_product_is_factored():
    """Of a neuron, the norms of its incoming and outgoing weights count: rows and columns of the products."""
    model = supernet(SearchSpace.from_dict(SMALL_SPACE | {"encoder_ffn_rank": [9], "decoder_ffn_rank": [8]})).eval()
    twin = model.get_active_subnet()
    assert all(isinstance(layer.fc1, FactoredLinear) for layer in twin.encoder.layers)
    before = supernet_orders(twin)
    generator = torch.Generator().manual_seed(moved(1))
    with torch.no_grad():
        for layer in (*twin.encoder.layers, *twin.decoder.layers):
            for linear in (layer.fc1, layer.fc2):
                scales = 2.0 ** torch.randint(-3, 4, (linear.rank,), generator=generator)  # exact
                linear.up.weight *= scales
                linear.down.weight /= scales[:, None]
    after = supernet_orders(twin)
    assert all(torch.equal(before.ffn[place], after.ffn[place]) for place in before.ffn)
    layer = twin.encoder.layers[1]
    incoming, outgoing = (linear.up.weight @ linear.down.weight for linear in (layer.fc1, layer.fc2))
    scores = incoming.norm(dim=1) * outgoing.norm(dim=0)
    sorted_scores = scores[after.ffn["encoder", 1]]
    assert (sorted_scores[1:] <= sorted_scores[:-1] * (1 + 1e-5)).all() and sorted_scores[0] > sorted_scores[-1]


@pytest.mark.parametrize("ranks", [{"encoder_ffn_rank": [20]}, RANKS], ids=["does not pay", "pays in part"])
def test_the_log_counts_what_the_twin_has(ranks):
    model = supernet(SearchSpace.from_dict(SMALL_SPACE | ranks), mos_routing="neuron", num_experts=3)
    count = sum(parameter.numel() for parameter in model.get_active_subnet().parameters())
    assert parameter_summary(model).endswith(f"the largest subnet alone: {count:,}")
