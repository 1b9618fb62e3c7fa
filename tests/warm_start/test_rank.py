"""Ranks in a warm start: the stock model at full rank, its best approximation below, and exports of both."""

import logging

import pytest
import torch

from mos_fairseq.export.stock import stock_checkpoint
from mos_fairseq.modules import FactoredLinear
from mos_fairseq.modules.factored_linear import product, truncated_factors
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.warm_start import Orders, importance_orders, supernet_from
from tests.export.test_stock import STATE, rebuilt
from tests.helpers import batch
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
