"""Families: another one, and dimensions that a space may leave out."""

from __future__ import annotations

import copy
import pickle

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import FAMILIES, SearchSpace, Subnet, arch_encoding, encoding_size, resolve_subnet
from mos_fairseq.sizes import AttentionSizes, LayerSizes
from tests.spaces import BERT_RANK_SPACE

LM = {
    "family": "decoder_only",
    "decoder_embed_dim": [12, 8],
    "decoder_layers": [3, 1],
    "decoder_ffn_embed_dim": [20, 10],
    "decoder_attention_heads": [4, 2],
    "qkv_dim": 16,
}


def without(data: dict, *keys: str, **changes) -> dict:
    return {key: value for key, value in (data | changes).items() if key not in keys}


@pytest.fixture
def elastic_q(space_dict) -> SearchSpace:
    """A space where every layer chooses its q."""
    return SearchSpace.from_dict(without(space_dict(), "qkv_dim", encoder_qkv_dim=[64, 32], decoder_qkv_dim=[48, 16]))


def test_a_language_models_space():
    space = SearchSpace.from_dict(LM)
    assert space.family.name == "decoder_only" and list(space.to_dict()) == list(LM)
    assert SearchSpace.from_spec(space.dumps()) == space
    subnets = list(space.iterate())
    assert len(subnets) == len(set(subnets)) == space.size == 2 * ((2 * 2) ** 3 + 2 * 2)
    assert subnets[0] == space.largest() and subnets[-1] == space.smallest()
    assert space.largest().summary() == "dec 3x12 ffn 20*3 heads 4*3 | qkv 16"
    assert space.smallest().layers("decoder") == (LayerSizes(8, 10, {"self_attn": AttentionSizes(2, 16, 8)}),)
    assert arch_encoding(space.smallest(), space, "per_layer") == pytest.approx([8 / 12, 1 / 3, 0.5, 0, 0, 0.5, 0, 0])
    assert space.largest().cross_spans == ()


def test_a_subnets_family_travels_with_it():
    space = SearchSpace.from_dict(LM)
    subnet = space.sample_subnet(1)
    assert '"family":"decoder_only"' in subnet.key
    for same in (Subnet.from_dict(subnet.to_dict()), pickle.loads(pickle.dumps(subnet)), copy.deepcopy(subnet)):
        assert same == subnet and hash(same) == hash(subnet) and same.family is FAMILIES["decoder_only"]
    assert resolve_subnet(subnet.key, space) == subnet


def test_families_do_not_mix(space_dict):
    language_model, translation = SearchSpace.from_dict(LM), SearchSpace.from_dict(space_dict())
    with pytest.raises(InputError, match="^family=decoder_only is not the search space's, encoder_decoder$"):
        translation.check(language_model.largest())
    difference = translation.difference(language_model)
    assert difference.startswith("family: encoder_decoder vs decoder_only; encoder_embed_dim: [64, 32] vs None; ")
    with pytest.raises(InputError, match="^search space: unknown key encoder_layers; allowed are decoder_embed_dim, "):
        SearchSpace.from_dict(LM | {"encoder_layers": [1]})


@pytest.mark.parametrize("family", ["electra", 7, None, ["encoder_decoder"]])
def test_unknown_families(family):
    message = "^search space: family: got .*, allowed are encoder_decoder, decoder_only, encoder_only$"
    with pytest.raises(InputError, match=message):
        SearchSpace.from_dict(LM | {"family": family})


def test_the_default_family_may_be_named(space_dict):
    named = SearchSpace.from_dict({"family": "encoder_decoder"} | space_dict())
    assert named == SearchSpace.from_dict(space_dict()) and "family" not in named.to_dict()


# --- dimensions that a space may leave out ---


def test_a_space_that_leaves_a_dimension_out_is_as_before(space_dict):
    space = SearchSpace.from_dict(space_dict())
    assert space.encoder_qkv_dim is None and "encoder_qkv_dim" not in space.to_dict()
    assert len(space.encoded) == encoding_size(space, "aggregate") == 10
    assert {a.inner for layer in space.largest().layers("decoder") for a in layer.attentions.values()} == {64}


def test_every_layer_chooses_its_q(elastic_q):
    assert elastic_q.constants == {} and encoding_size(elastic_q, "aggregate") == 12
    subnet = elastic_q.sample_subnet("q", 2)
    assert set(subnet.decoder_qkv_dim) <= {48, 16} and len(subnet.decoder_qkv_dim) == subnet.decoder_layers
    for layer, q in zip(subnet.layers("decoder"), subnet.decoder_qkv_dim, strict=True):
        assert {attention.inner for attention in layer.attentions.values()} == {q}
    assert Subnet.from_dict(subnet.to_dict()) == subnet
    assert [name for name in subnet.summary().split() if name == "qkv"] == ["qkv", "qkv"]
    with pytest.raises(InputError, match=r"^encoder_qkv_dim\[0\]=60 is not in the search space; choices: 64, 32$"):
        elastic_q.check(elastic_q.largest().replace(encoder_qkv_dim=60))


def test_ranks(space_dict):
    space = SearchSpace.from_dict(space_dict(decoder_ffn_rank=[7, 30]))
    assert encoding_size(space, "aggregate") == 11 and space["decoder_ffn_rank"] == (30, 7)
    subnet = space.sample_subnet("rank", 1)
    assert [layer.rank for layer in subnet.layers("decoder")] == list(subnet.decoder_ffn_rank)
    assert not any(layer.rank for layer in subnet.layers("encoder"))
    assert Subnet.from_dict(subnet.to_dict()) == subnet and " rank " in subnet.summary()
    with pytest.raises(InputError, match="^search space: decoder_ffn_rank: got 0, allowed are positive integers$"):
        SearchSpace.from_dict(space_dict(decoder_ffn_rank=[0]))
    most = min(space.max("decoder_embed_dim"), space.max("decoder_ffn_embed_dim"))
    with pytest.raises(InputError, match=f"decoder_ffn_rank: {most + 1} is more than {most}, the rank of the largest"):
        SearchSpace.from_dict(space_dict(decoder_ffn_rank=[most + 1, 2]))
    ratios = {key: value for key, value in BERT_RANK_SPACE.items() if key != "encoder_ffn_embed_dim"}
    with pytest.raises(InputError, match="encoder_ffn_rank: 24 is more than 12, the rank of the largest matrix"):
        SearchSpace.from_dict(ratios | {"encoder_ffn_ratio": [50, 25]})


def test_one_side_may_choose(space_dict):
    space = SearchSpace.from_dict(space_dict(encoder_qkv_dim=[32, 16]))
    (encoder, _), decoder = space.largest().layers("encoder"), space.largest().layers("decoder")
    assert encoder.attentions["self_attn"].inner == 32 and decoder[0].attentions["encoder_attn"].inner == 64
    plain = SearchSpace.from_dict(space_dict())
    with pytest.raises(InputError, match="^encoder_qkv_dim is given in the subnet only, not in the search space$"):
        plain.check(space.largest())
    with pytest.raises(InputError, match="^encoder_qkv_dim is given in the search space only, not in the subnet$"):
        space.check(plain.largest())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qkv_dim": 64}, "qkv_dim=64 has no effect: encoder_qkv_dim, decoder_qkv_dim set it by layer"),
        ({"encoder_qkv_dim": [64, 30]}, "encoder_attention_heads: 4 heads do not divide encoder_qkv_dim=30"),
        ({"encoder_qkv_dim": [0]}, "encoder_qkv_dim: got 0, allowed are positive integers"),
        ({"encoder_qkv_dim": 64}, "encoder_qkv_dim: expected a list of integers, got 64"),
        ({"decoder_qkv_dim": None}, "decoder_qkv_dim: expected a list of integers, got None"),
    ],
)
def test_bad_choices_of_q(elastic_q, changes, message):
    with pytest.raises(InputError, match=f"^search space: {message}$"):
        SearchSpace.from_dict(elastic_q.to_dict() | changes)


def test_heads_divide_the_q_of_their_own_layer(elastic_q):
    values = elastic_q.largest().to_dict() | {"encoder_attention_heads": [4, 2], "encoder_qkv_dim": [64, 30]}
    assert Subnet.from_dict(values).layers("encoder")[1].attentions["self_attn"] == AttentionSizes(2, 30, 64)
    with pytest.raises(InputError, match=r"^encoder_attention_heads: 4 heads do not divide encoder_qkv_dim\[0\]=30$"):
        Subnet.from_dict(values | {"encoder_qkv_dim": [30, 64]})
