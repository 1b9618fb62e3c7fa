"""Dropout of a subnet is scaled by d/d_max, the same everywhere (``mos_fairseq/README.md``)."""

import pytest
from fairseq.modules import FairseqDropout

from tests.helpers import small_space, supernet

RATES = {"dropout": 0.2, "attention_dropout": 0.3, "activation_dropout": 0.4}


def rates(model, side: str) -> dict[str, float]:
    """Current rate of every dropout module of the active layers and the side itself."""
    stack = getattr(model, side)
    found = {name: m.p for name, m in stack.named_modules() if isinstance(m, FairseqDropout)}
    absent = [f"layers.{i}." for i in range(stack.num_active_layers, len(stack.layers))]
    return {name: p for name, p in found.items() if not name.startswith(tuple(absent))}


def configured(name: str) -> float:
    if "attn" in name:
        return RATES["attention_dropout"]
    return RATES["activation_dropout" if "activation" in name else "dropout"]


@pytest.mark.parametrize("routing", ["none", "neuron"])
def test_every_rate_is_scaled_by_its_sides_width(routing):
    model = supernet(mos_routing=routing, router_dropout=0.25, **RATES)
    largest = {side: rates(model, side) for side in ("encoder", "decoder")}
    assert len(largest["encoder"]) == 1 + 3 * 3 and len(largest["decoder"]) == 1 + 3 * 4
    narrow = dict.fromkeys(["encoder_embed_dim"], 12) | dict.fromkeys(["decoder_embed_dim"], 14)
    for seed in range(12):
        subnet = model.sample_subnet("dropout", seed)
        for side, max_width in (("encoder", 20), ("decoder", 28)):
            width = getattr(subnet, f"{side}_embed_dim")
            assert width in (max_width, narrow[f"{side}_embed_dim"])
            found = rates(model, side)
            assert found
            for name, p in found.items():
                assert p == pytest.approx(configured(name) * width / max_width), (side, name)
    model.set_active_subnet(model.search_space.largest())
    assert {side: rates(model, side) for side in ("encoder", "decoder")} == largest
    for side in largest:
        assert all(p == configured(name) for name, p in largest[side].items())


def test_the_routers_dropout_is_not_the_subnets():
    model = supernet(mos_routing="layer", router_dropout=0.25, **RATES)
    model.set_active_subnet(model.search_space.smallest())
    assert model.encoder.layers[0].router.trunk[2].p == 0.25


def test_rates_do_not_drift_over_many_switches():
    model = supernet(small_space(), mos_routing="none", **RATES)
    for seed in range(40):
        model.sample_subnet(seed)
    model.set_active_subnet(model.search_space.largest())
    for side in ("encoder", "decoder"):
        assert all(p == configured(name) for name, p in rates(model, side).items())


# --- other scalings ---


def test_activation_dropout_by_the_width_of_its_own_layer():
    model = supernet(mos_routing="none", dropout_scaling="layer", **RATES)
    for seed in range(12):
        subnet = model.sample_subnet("dropout", seed)
        for side, max_width, max_ffn in (("encoder", 20, 33), ("decoder", 28, 37)):
            scale = getattr(subnet, f"{side}_embed_dim") / max_width
            for name, p in rates(model, side).items():
                if "activation" in name:
                    layer = int(name.split(".")[1])
                    expected = RATES["activation_dropout"] * getattr(subnet, f"{side}_ffn_embed_dim")[layer] / max_ffn
                else:
                    expected = configured(name) * scale
                assert p == pytest.approx(expected), (side, name)


@pytest.mark.parametrize(("scaling", "others"), [("largest", 0.0), ("none", 1.0)])
def test_dropout_of_the_largest_only_or_of_all_alike(scaling, others):
    model = supernet(mos_routing="none", dropout_scaling=scaling, **RATES)
    space = model.search_space
    narrower_ffn = dict.fromkeys(["encoder_ffn_embed_dim"], (33, 33, 17))
    nearly = type(space.largest()).from_dict(space.largest().to_dict() | narrower_ffn)
    for subnet, scale in ((nearly, others), (space.largest(), 1.0), (space.smallest(), others)):
        model.set_active_subnet(subnet)
        for side in ("encoder", "decoder"):
            assert all(p == configured(name) * scale for name, p in rates(model, side).items())
