"""Supernets with experts of low rank: what they start from, what trains, and what their subnets are."""

import copy

import pytest
import torch

from mos_fairseq.errors import InputError
from mos_fairseq.models import RobertaMosModel, TransformerLanguageModelMosModel, TransformerMosModel
from mos_fairseq.models.lasting_buffers import from_bits
from mos_fairseq.models.parameter_summary import parameter_summary
from mos_fairseq.modules import ROUTERS, LowRankExperts
from tests.helpers import batch, fake_task, language_model, masked_language_model, supernet
from tests.models.test_gradients import loss_of

ROUTINGS = [("layer", 1), ("layer", 2), ("neuron", 3), ("rank", 2)]
LOW_RANK = {"mos_routing": "rank", "num_experts": 2, "expert_rank": 3, "mos_linears": "all"}


def fresh(make, monkeypatch, **options):
    monkeypatch.setattr("tests.helpers.perturb", lambda model: None)
    return make(**options)


def some_subnets(space):
    return [space.largest(), space.smallest(), space.sample_subnet("low rank")]


@torch.no_grad()
def logits(model, subnet) -> torch.Tensor:
    model.set_active_subnet(subnet)
    src, prev, _ = batch()
    if isinstance(model, TransformerMosModel):
        return model(src, src.ne(1).sum(1), prev)[0]
    return model(prev)[0]


@pytest.mark.parametrize("make", [supernet, language_model, masked_language_model])
@pytest.mark.parametrize(("routing", "experts"), ROUTINGS)
def test_it_starts_as_plain_weight_sharing_of_the_same_seed(make, routing, experts, monkeypatch):
    plain = fresh(make, monkeypatch, mos_routing="none").eval()
    options = {"mos_routing": routing, "num_experts": experts, "expert_rank": 3, "mos_linears": "all"}
    model = fresh(make, monkeypatch, **options).eval()
    shared, mine = plain.state_dict(), model.state_dict()
    assert all(torch.equal(mine[name], shared[name]) for name in shared.keys() - {"identity"})
    for subnet in some_subnets(plain.search_space):
        assert torch.equal(logits(model, subnet), logits(plain, subnet))


@pytest.mark.slow
@pytest.mark.parametrize("make", [supernet, language_model, masked_language_model])
@pytest.mark.parametrize(("routing", "experts"), ROUTINGS)
def test_the_twin_is_the_subnet(make, routing, experts):
    model = make(mos_routing=routing, num_experts=experts, expert_rank=3, mos_linears="all").eval()
    for subnet in some_subnets(model.search_space):
        expected, twin = logits(model, subnet), model.get_active_subnet()
        assert not any(isinstance(m, (LowRankExperts, *ROUTERS)) for m in twin.modules())
        src, prev, _ = batch()
        with torch.no_grad():
            found = twin(src, src.ne(1).sum(1), prev)[0] if make is supernet else twin(prev)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_kept_weights_follow_the_factors():
    model = supernet(**LOW_RANK).eval()
    before = logits(model, model.search_space.largest())
    with torch.no_grad():
        model.encoder.layers[0].fc1.low_rank.down.mul_(2)
        src, prev, _ = batch()
        assert not torch.allclose(model(src, None, prev)[0], before)


@pytest.mark.parametrize("routing", ["layer", "neuron", "rank"])
def test_both_factors_and_routers_learn_after_the_first_update(routing, monkeypatch):
    options = LOW_RANK | {"mos_routing": routing, "dropout": 0.0, "router_dropout": 0.0, "activation_fn": "gelu"}
    model = fresh(supernet, monkeypatch, **options).train()
    low_rank = model.encoder.layers[0].fc1.low_rank
    router = next(m for m in model.encoder.layers[0].modules() if isinstance(m, ROUTERS)).head.weight
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for update in range(2):
        optimizer.zero_grad()
        loss_of(model).backward()
        assert low_rank.up.grad.flatten(1).any(1).all()
        assert bool(low_rank.down.grad.any()) == bool(router.grad.any()) == (update > 0)
        optimizer.step()
    assert low_rank.down.grad.flatten(1).any(1).all() and model.encoder.layers[0].fc1.weight.grad.any()


def test_a_frozen_supernet_stays_bit_by_bit(monkeypatch):
    """Through fairseq's way of building a model to train; only the rest has gradients at all."""
    model = fresh(supernet, monkeypatch, **LOW_RANK)
    model = TransformerMosModel.build_model(
        model.cfg.__class__(**vars(model.cfg) | {"freeze_shared": True}), fake_task()
    )
    before, space = copy.deepcopy(model.state_dict()), model.search_space
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)  # passes over what has no gradient
    for _ in range(2):
        for subnet in (space.largest(), space.smallest()):
            model.train().set_active_subnet(subnet)
            loss_of(model).backward()
        optimizer.step()
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    assert trained == {n for n, _ in model.named_parameters() if "low_rank" in n or "router" in n}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in trained), name
    model.eval()
    model.load_state_dict(before)
    assert model.encoder.layers[0].fc1.low_rank.is_zero


@pytest.mark.parametrize("kind", [TransformerMosModel, TransformerLanguageModelMosModel, RobertaMosModel])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expert_rank": -1}, "expert_rank is -1: allowed are whole numbers from 0 up"),
        ({"expert_rank": 4, "mos_routing": "none"}, "expert_rank is 4: mos_routing none has no experts"),
        ({"mos_routing": "rank"}, "mos_routing is rank: .* need --expert-rank 1 or more"),
        ({"freeze_shared": True}, "freeze_shared is True: .* without --expert-rank 1 or more"),
    ],
)
def test_refusals(kind, options, message):
    make = {"transformer_mos": supernet, "transformer_lm_mos": language_model, "roberta_mos": masked_language_model}
    with pytest.raises(InputError, match=message):
        make[kind.arch](**options)


def test_weights_of_another_rank_are_refused():
    model, full = supernet(**LOW_RANK), supernet(**LOW_RANK | {"mos_routing": "layer", "expert_rank": 0})
    assert b"expert_rank" in from_bits(model.identity) and b"expert_rank" not in from_bits(full.identity)
    with pytest.raises(InputError, match="expert_rank: 3 against 2"):
        supernet(**LOW_RANK | {"expert_rank": 2}).load_state_dict(model.state_dict())
    with pytest.raises(InputError, match="mos_routing: rank against layer; expert_rank: 3 against 0"):
        full.load_state_dict(model.state_dict())
    with pytest.raises(InputError, match="mos_routing: layer against rank; expert_rank: 0 against 3"):
        model.load_state_dict(full.state_dict())
    supernet(seed=2, **LOW_RANK).load_state_dict(model.state_dict())


def test_what_is_said_of_the_parameters():
    model = supernet(**LOW_RANK)
    factors = sum(p.numel() for n, p in model.named_parameters() if "low_rank" in n)
    routers = sum(p.numel() for n, p in model.named_parameters() if "router" in n)
    twin = sum(p.numel() for p in model.get_active_subnet().parameters())
    assert twin + factors + routers == sum(p.numel() for p in model.parameters())
    said = f"2 experts of rank 3 in 33 FFN and attention linears: {factors:,} parameters; routers: {routers:,}; "
    assert parameter_summary(model) == f"{said}the largest subnet alone: {twin:,}"
    shared = parameter_summary(supernet(mos_routing="layer", num_experts=1, expert_rank=3))
    assert shared.startswith("1 expert of rank 3 in 12 FFN linears: ") and "; routers: 0; " in shared
