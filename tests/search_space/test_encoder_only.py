"""Spaces of masked language models: widths of layers, ratios, heads, and the maps between layers."""

from __future__ import annotations

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.latency.features import averages
from mos_fairseq.search_space import FAMILIES, SearchSpace, Subnet, arch_encoding
from mos_fairseq.sizes import AttentionSizes, LayerSizes

UNIFORM = {
    "family": "encoder_only",
    "encoder_embed_dim": [24, 16],
    "encoder_layers": [2, 1],
    "encoder_ffn_embed_dim": [40, 20],
    "encoder_attention_heads": [4, 2],
    "head_dim": 6,
}
FACTORISED = UNIFORM | {"encoder_hidden_dim": [30, 12]}
BOTTLENECK = {key: value for key, value in UNIFORM.items() if key != "head_dim"} | {"encoder_bottleneck_dim": [24, 8]}


def without(data: dict, *keys: str, **changes) -> dict:
    return {key: value for key, value in (data | changes).items() if key not in keys}


@pytest.mark.parametrize("data", [UNIFORM, FACTORISED, BOTTLENECK], ids=["uniform", "factorised", "bottleneck"])
def test_a_space_knows_all_its_subnets(data):
    space = SearchSpace.from_dict(data)
    assert SearchSpace.from_spec(space.dumps()) == space
    subnets = list(space.iterate())
    per_layer = 8 if data is BOTTLENECK else 4
    widths = 4 if data is FACTORISED else 2
    assert len(subnets) == len(set(subnets)) == space.size == widths * (per_layer**2 + per_layer)
    assert subnets[0] == space.largest() and subnets[-1] == space.smallest()
    assert space.largest().cross_spans == ()
    for subnet in subnets[::7]:
        assert Subnet.from_dict(subnet.to_dict()) == subnet
        encoding = arch_encoding(subnet, space, "per_layer")
        assert max(encoding) <= 1 and arch_encoding(space.largest(), space, "aggregate") == [1] * len(space.encoded)


def test_layers_are_as_wide_as_the_embeddings_and_have_the_heads_that_fit():
    """A layer of width 16 fits 2 of the 4 heads of width 6, as in stock roberta."""
    largest, narrow = (SearchSpace.from_dict(UNIFORM).largest().replace(encoder_embed_dim=d) for d in (24, 16))
    assert largest.layers("encoder")[0] == LayerSizes(24, 40, {"self_attn": AttentionSizes(4, 24, 24)})
    assert narrow.layers("encoder")[0] == LayerSizes(16, 40, {"self_attn": AttentionSizes(2, 12, 16)})
    assert narrow.maps("encoder") == () and narrow.summary() == "enc 2x16 ffn 40*2 heads 2*2 | head 6"
    assert averages(narrow)["encoder_attention_heads"] == 2


def test_one_width_for_all_layers():
    subnet = SearchSpace.from_dict(FACTORISED).largest()
    assert [layer.width for layer in subnet.layers("encoder")] == [30, 30] and subnet.width("encoder") == 24
    assert subnet.maps("encoder") == ((24, 30), None, (30, 24))
    assert subnet.summary() == "enc 2x24 hidden 30 ffn 40*2 heads 4*2 | head 6"


def test_each_layer_has_its_own_width_which_its_heads_split():
    subnet = SearchSpace.from_dict(BOTTLENECK).largest().replace(encoder_bottleneck_dim=(8, 24))
    assert subnet.layers("encoder") == (
        LayerSizes(8, 40, {"self_attn": AttentionSizes(4, 8, 8)}),
        LayerSizes(24, 40, {"self_attn": AttentionSizes(4, 24, 24)}),
    )
    assert subnet.maps("encoder") == ((24, 8), (8, 24), (24, 24))
    assert subnet.summary() == "enc 2x24 width 8,24 ffn 40*2 heads 4*2"


def test_ffn_in_per_cent_of_the_width():
    space = SearchSpace.from_dict(without(BOTTLENECK, "encoder_ffn_embed_dim", encoder_ffn_ratio=[400, 250]))
    subnet = space.largest().replace(encoder_bottleneck_dim=(24, 8), encoder_ffn_ratio=(250, 400))
    assert [layer.ffn for layer in subnet.layers("encoder")] == [60, 32]
    assert averages(subnet)["encoder_ffn_ratio"] == 46 and "ffn 60,32" in subnet.summary()
    terms = FAMILIES["encoder_only"].terms(averages(subnet))
    assert terms["encoder_layers*encoder_ffn_ratio*encoder_bottleneck_dim"] == 2 * 46 * 16


def test_depth_reaches_the_encoding():
    space = SearchSpace.from_dict(UNIFORM)
    one, two = space.largest().replace(encoder_layers=1), space.largest()
    for kind in ("aggregate", "per_layer"):
        assert arch_encoding(one, space, kind) != arch_encoding(two, space, kind)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            UNIFORM | {"encoder_hidden_dim": [8], "encoder_bottleneck_dim": [8]},
            "at most one of encoder_hidden_dim and encoder_bottleneck_dim is allowed, got both",
        ),
        (
            without(UNIFORM, "encoder_ffn_embed_dim"),
            "exactly one of encoder_ffn_embed_dim and encoder_ffn_ratio is needed, got neither",
        ),
        (
            UNIFORM | {"encoder_ffn_ratio": [400]},
            "exactly one of encoder_ffn_embed_dim and encoder_ffn_ratio is needed, got both",
        ),
        (UNIFORM | {"qkv_dim": 24}, "at most one of qkv_dim and head_dim is allowed, got qkv_dim=24 and head_dim=6"),
        (UNIFORM | {"encoder_embed_dim": [24, 4]}, "encoder_embed_dim: 4 is less than head_dim=6, one head"),
        (
            BOTTLENECK | {"encoder_bottleneck_dim": [24, 6]},
            "encoder_attention_heads: 4 heads do not divide encoder_bottleneck_dim=6",
        ),
        (
            without(UNIFORM, "head_dim", encoder_embed_dim=[10]),
            "encoder_attention_heads: 4 heads do not divide encoder_embed_dim=10",
        ),
        (UNIFORM | {"encoder_bottleneck_dim": [0]}, "encoder_bottleneck_dim: got 0, allowed are positive integers"),
    ],
)
def test_bad_spaces(data, message):
    with pytest.raises(InputError, match=f"^search space: {message}$"):
        SearchSpace.from_dict(data)


def test_heads_split_the_width_of_their_own_layer():
    values = SearchSpace.from_dict(BOTTLENECK).largest().to_dict()
    values |= {"encoder_bottleneck_dim": [8, 6], "encoder_attention_heads": [4, 3]}
    assert Subnet.from_dict(values).layers("encoder")[1].attentions["self_attn"] == AttentionSizes(3, 6, 6)
    with pytest.raises(InputError, match=r"4 heads do not divide encoder_bottleneck_dim\[1\]=6$"):
        Subnet.from_dict(values | {"encoder_attention_heads": 4})
