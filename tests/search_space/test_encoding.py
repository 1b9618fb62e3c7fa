"""The arch encoding, by hand-computed values."""

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import ENCODING_KINDS, SearchSpace, Subnet, arch_encoding, encoding_size


@pytest.mark.parametrize("kind", ENCODING_KINDS)
@pytest.mark.parametrize("name", SearchSpace.preset_names())
def test_largest_encodes_to_ones_and_all_fit(name, kind):
    space = SearchSpace.from_spec(name)
    size = encoding_size(space, kind)
    assert arch_encoding(space.largest(), space, kind) == [1.0] * size
    for subnet in [space.smallest(), *(space.sample_subnet(seed) for seed in range(20))]:
        values = arch_encoding(subnet, space, kind)
        assert len(values) == size
        assert all(type(value) is float and 0 <= value <= 1 for value in values)


def test_sizes():
    assert encoding_size(SearchSpace.from_spec("wmt14_en_de"), "aggregate") == 10
    assert encoding_size(SearchSpace.from_spec("wmt14_en_de"), "per_layer") == 4 + 2 * 6 + 4 * 6
    assert encoding_size(SearchSpace.from_spec("tiny"), "per_layer") == 4 + 2 * 2 + 4 * 2


@pytest.fixture
def case(space_dict):
    """A subnet all of whose features differ, in a space with 3 decoder layers at most."""
    space = SearchSpace.from_dict(
        space_dict(
            encoder_layers=[1, 2, 4],
            decoder_embed_dim=[48, 80],
            decoder_ffn_embed_dim=[256, 64],
            decoder_layers=[2, 3],
            decoder_attention_heads=[8, 2],
            encoder_attention_heads=[16, 4],
        )
    )
    subnet = Subnet(
        encoder_embed_dim=32,
        decoder_embed_dim=48,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_embed_dim=(64,),
        encoder_attention_heads=(4,),
        decoder_ffn_embed_dim=(256, 64),
        decoder_attention_heads=(2, 8),
        decoder_ende_attention_heads=(4, 2),
        decoder_arbitrary_ende_attn=(2, -1),
        qkv_dim=64,
    )
    return space, subnet


def test_aggregate_by_hand(case):
    space, subnet = case
    # The mean span counts 3 and 1 encoder layers although the encoder has only one: unclamped.
    assert arch_encoding(subnet, space, "aggregate") == pytest.approx(
        [32 / 64, 1 / 4, 64 / 128, 4 / 16, 48 / 80, 2 / 3, 160 / 256, 5 / 8, 3 / 4, 2 / 3]
    )


def test_per_layer_by_hand(case):
    space, subnet = case
    assert arch_encoding(subnet, space, "per_layer") == pytest.approx(
        [0.5, 0.25, 0.5, 0, 0, 0, 0.25, 0, 0, 0]  # encoder: embed, layers, FFN x 4, heads x 4
        + [0.6, 2 / 3, 1, 0.25, 0, 0.25, 1, 0]  # decoder: embed, layers, FFN x 3, self heads x 3
        + [1, 0.5, 0, 1, 1 / 3, 0]  # cross heads x 3, cross span x 3
    )


def test_span_is_scaled_by_the_space_in_use(space_dict):
    space = SearchSpace.from_dict(space_dict(decoder_arbitrary_ende_attn=[1, -1]))
    assert arch_encoding(space.largest(), space, "aggregate")[-1] == 1
    assert arch_encoding(space.smallest(), space, "aggregate")[-1] == 0.5


def test_per_layer_tells_orders_apart_and_aggregate_does_not(case):
    space, subnet = case
    other = subnet.replace(decoder_ffn_embed_dim=(64, 256))
    assert arch_encoding(subnet, space, "aggregate") == arch_encoding(other, space, "aggregate")
    assert arch_encoding(subnet, space, "per_layer") != arch_encoding(other, space, "per_layer")


def test_bad_input(case):
    space, subnet = case
    for call in (lambda: arch_encoding(subnet, space, "mean"), lambda: encoding_size(space, "mean")):
        with pytest.raises(InputError, match="^arch encoding 'mean': allowed are aggregate, per_layer$"):
            call()
    with pytest.raises(InputError, match="^encoder_embed_dim=16 is not in the search space; choices: 64, 32$"):
        arch_encoding(subnet.replace(encoder_embed_dim=16), space, "aggregate")
