"""SearchSpace: size, membership, extremes, drawing, presets, reading and writing."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import FAMILIES, SearchSpace, Subnet

SCALARS = ("encoder_embed_dim", "decoder_embed_dim", "encoder_layers", "decoder_layers")
ENCODER = ("encoder_ffn_embed_dim", "encoder_attention_heads")
DECODER = (
    "decoder_ffn_embed_dim",
    "decoder_attention_heads",
    "decoder_ende_attention_heads",
    "decoder_arbitrary_ende_attn",
)


@st.composite
def spaces(draw):
    """Small spaces: at most two choices a key, at most two layers."""

    def choices(*values):
        return draw(st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True))

    data = {
        "encoder_embed_dim": choices(8, 16, 24),
        "decoder_embed_dim": choices(8, 16),
        "encoder_layers": choices(1, 2),
        "decoder_layers": choices(1, 2),
        "encoder_ffn_embed_dim": choices(32, 64),
        "encoder_attention_heads": choices(2, 4),
        "decoder_ffn_embed_dim": choices(32, 64),
        "decoder_attention_heads": choices(1, 2),
        "decoder_ende_attention_heads": choices(2, 4),
        "decoder_arbitrary_ende_attn": choices(-1, 1, 2),
    }
    data[draw(st.sampled_from(["qkv_dim", "head_dim"]))] = 16
    return SearchSpace.from_dict(data)


def brute_force(space):
    """The distinct encoder and decoder halves, found by giving every possible layer every value."""
    choices = space.to_dict()
    width = {key: choices.pop(key) for key in ("qkv_dim", "head_dim") if key in choices}
    sides = []
    for layer_keys, side in ((ENCODER, "encoder"), (DECODER, "decoder")):
        most = max(choices[f"{side}_layers"])
        names = (f"{side}_embed_dim", f"{side}_layers", *layer_keys)
        lists = [itertools.product(choices[key], repeat=most) for key in layer_keys]
        options = itertools.product(choices[f"{side}_embed_dim"], choices[f"{side}_layers"], *lists)
        # Cut here as Subnet will, only to keep the product of both sides small enough to list.
        cut = {(embed, depth, *(values[:depth] for values in rest)) for embed, depth, *rest in options}
        sides.append([dict(zip(names, option, strict=True)) for option in cut])
    return sides, width


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(spaces())
def test_size_is_the_number_of_distinct_subnets(space):
    (encoders, decoders), width = brute_force(space)
    assert space.size == len(encoders) * len(decoders)
    if space.size <= 2000:
        expected = {Subnet(**encoder, **decoder, **width) for encoder in encoders for decoder in decoders}
        listed = list(space.iterate())
        assert len(listed) == len({subnet.key for subnet in listed}) == space.size
        assert set(listed) == expected


def test_size_by_hand(space_dict):
    # Encoder: 2 widths * (2 FFNs ** depth 1 or 2) = 2 * (2 + 4); decoder: (2 heads * 3 spans) ** 1 or 3.
    assert SearchSpace.from_dict(space_dict()).size == 12 * 222
    # WMT: encoder 2 * (3*2)^6; decoder 2 * sum_d (3*2*2*3)^d.
    assert SearchSpace.from_spec("wmt14_en_de").size == 2 * 6**6 * 2 * sum(36**depth for depth in range(1, 7))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(spaces(), st.integers())
def test_properties_of_drawing_and_extremes(space, seed):
    subnet = space.sample(random.Random(seed))
    largest, smallest = space.largest(), space.smallest()
    for one in (subnet, largest, smallest):
        assert space.contains(one)
        space.check(one)
    for key in SCALARS:
        assert getattr(smallest, key) <= getattr(subnet, key) <= getattr(largest, key) == space.max(key)
    for key in ENCODER + DECODER:
        low, high = min(space.to_dict()[key]), max(space.to_dict()[key])
        assert set(getattr(smallest, key)) == {low}
        assert set(getattr(largest, key)) == {high} == {space.max(key)}
        assert all(low <= value <= high for value in getattr(subnet, key))


@pytest.mark.parametrize("name", SearchSpace.preset_names())
def test_presets_extremes_and_files(name, tmp_path):
    space = SearchSpace.from_spec(name)
    assert space.contains(space.largest()) and space.contains(space.smallest())
    assert SearchSpace.from_spec(space.dumps()) == space
    space.save(tmp_path / "space.yaml")
    assert SearchSpace.from_spec(str(tmp_path / "space.yaml")) == space
    assert SearchSpace.from_spec(tmp_path / "space.yaml") == space
    assert space.dumps().startswith("{") and "\n" not in space.dumps()


def test_preset_values():
    assert SearchSpace.preset_names() == [
        "bert_bottleneck",
        "bert_factorised",
        "bert_tiny",
        "bert_uniform",
        "iwslt14_de_en",
        "tiny",
        "tiny_lm",
        "wikitext103",
        "wmt14_en_de",
        "wmt14_en_fr",
        "wmt19_en_de",
    ]
    assert SearchSpace.preset_names(FAMILIES["decoder_only"]) == ["tiny_lm", "wikitext103"]
    assert SearchSpace.preset_names(FAMILIES["encoder_only"]) == SearchSpace.preset_names()[:4]
    wmt = SearchSpace.from_spec("wmt14_en_de")
    assert wmt == SearchSpace.from_spec("wmt14_en_fr") == SearchSpace.from_spec("wmt19_en_de")
    heads, ffn = [8, 4], [3072, 2048, 1024]
    expected = {
        "encoder_embed_dim": [640, 512],
        "decoder_embed_dim": [640, 512],
        "encoder_layers": [6],
        "decoder_layers": [6, 5, 4, 3, 2, 1],
        "encoder_ffn_embed_dim": ffn,
        "encoder_attention_heads": heads,
        "decoder_ffn_embed_dim": ffn,
        "decoder_attention_heads": heads,
        "decoder_ende_attention_heads": heads,
        "decoder_arbitrary_ende_attn": [2, 1, -1],
        "qkv_dim": 512,
    }
    assert wmt.to_dict() == expected
    for key, value in expected.items():
        expected[key] = {8: [4, 2], 3072: [2048, 1024, 512]}.get(value[0] if key != "qkv_dim" else 0, value)
    assert SearchSpace.from_spec("iwslt14_de_en").to_dict() == expected
    assert SearchSpace.from_spec("tiny").size == 86400


def test_order_in_the_source_never_matters(space_dict):
    data = space_dict()
    turned = {key: value[::-1] if isinstance(value, list) else value for key, value in reversed(data.items())}
    first, second = SearchSpace.from_dict(data), SearchSpace.from_dict(turned)
    assert first == second and hash(first) == hash(second) and first.dumps() == second.dumps()
    assert first.sample_subnet(5) == second.sample_subnet(5)
    assert first.decoder_arbitrary_ende_attn == (2, 1, -1)


def test_largest_and_smallest_by_hand(space_dict):
    space = SearchSpace.from_dict(space_dict())
    keys = list(space_dict())
    largest = (64, 48, 2, 3, (128,) * 2, (4,) * 2, (256,) * 3, (2,) * 3, (4,) * 3, (2,) * 3, 64)
    smallest = (32, 48, 1, 1, (64,), (4,), (256,), (2,), (2,), (-1,), 64)
    assert space.largest() == Subnet(**dict(zip(keys, largest, strict=True)))
    assert space.smallest() == Subnet(**dict(zip(keys, smallest, strict=True)))


def test_fixed_draw():
    """A literal, so that a change of the drawing, which would change every seeded run, is noticed."""
    assert SearchSpace.from_spec("tiny").sample_subnet(1, 2, 3).key == (
        '{"encoder_embed_dim":96,"decoder_embed_dim":96,"encoder_layers":2,"decoder_layers":2,'
        '"encoder_ffn_embed_dim":[128,512],"encoder_attention_heads":[2,2],"decoder_ffn_embed_dim":[128,256],'
        '"decoder_attention_heads":[2,4],"decoder_ende_attention_heads":[2,2],'
        '"decoder_arbitrary_ende_attn":[-1,1],"qkv_dim":128}'
    )


def test_seeded_draws_ignore_and_keep_the_global_random_state():
    space = SearchSpace.from_spec("wmt14_en_de")
    random.seed(1)
    before = random.getstate()
    first = space.sample_subnet(7, 100)
    assert random.getstate() == before
    random.seed(2)
    assert space.sample_subnet(7, 100) == first


def test_seed_parts_all_count():
    space = SearchSpace.from_spec("wmt14_en_de")
    parts = [(1, 23), (12, 3), (123,), (1, 2, 3), (23, 1), ("random", 1)]
    assert len({space.sample_subnet(*part).key for part in parts}) == len(parts)


class CountingRandom(random.Random):
    calls = 0

    def random(self):
        self.calls += 1
        return super().random()


def test_one_random_number_per_value(space_dict):
    """Also where there is only one choice: adding a choice must not shift the others' draws."""
    space = SearchSpace.from_dict(space_dict())
    for seed in range(10):
        rng = CountingRandom(seed)
        subnet = space.sample(rng)
        assert rng.calls == 4 + 2 * subnet.encoder_layers + 4 * subnet.decoder_layers


def test_choices_are_drawn_equally_often():
    space = SearchSpace.from_spec("wmt14_en_de")
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(3000)]
    for values, choices in (
        ([subnet.decoder_layers for subnet in drawn], space.decoder_layers),
        ([subnet.encoder_embed_dim for subnet in drawn], space.encoder_embed_dim),
        ([subnet.decoder_arbitrary_ende_attn[-1] for subnet in drawn], space.decoder_arbitrary_ende_attn),
    ):
        counts, expected = Counter(values), len(values) / len(choices)
        chi_square = sum((counts[choice] - expected) ** 2 / expected for choice in choices)
        assert set(counts) == set(choices)
        assert chi_square < 20.5  # 0.1 % level at 5 degrees of freedom, the most there are here


HAT_OPTIONS = """\
arch: transformersuper
share-all-embeddings: True
adam-betas: (0.9, 0.98)
warmup-init-lr: 1e-7
encoder-embed-dim: 640
encoder-layers: 6
qkv-dim: 512
"""
# the names under which HAT's files, of the spaces that are packaged here, hold the choices of each key
HAT_KEYS = {
    "encoder_embed_dim": "encoder-embed-choice",
    "decoder_embed_dim": "decoder-embed-choice",
    "encoder_layers": "encoder-layer-num-choice",
    "decoder_layers": "decoder-layer-num-choice",
    "encoder_ffn_embed_dim": "encoder-ffn-embed-dim-choice",
    "encoder_attention_heads": "encoder-self-attention-heads-choice",
    "decoder_ffn_embed_dim": "decoder-ffn-embed-dim-choice",
    "decoder_attention_heads": "decoder-self-attention-heads-choice",
    "decoder_ende_attention_heads": "decoder-ende-attention-heads-choice",
    "decoder_arbitrary_ende_attn": "decoder-arbitrary-ende-attn-choice",
}


def hat_text(space):
    choices = {key: value for key, value in space.to_dict().items() if key != "qkv_dim"}
    return HAT_OPTIONS + "".join(f"{HAT_KEYS[key]}: {value[::-1]}\n" for key, value in choices.items())


@pytest.mark.parametrize("name", ["iwslt14_de_en", "wmt14_en_de", "wmt14_en_fr", "wmt19_en_de"])
def test_hats_space_file_is_the_preset(name, tmp_path):
    space, path = SearchSpace.from_spec(name), tmp_path / "space0.yml"
    path.write_text(hat_text(space))
    assert SearchSpace.from_spec(path) == space


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layer-num-choice", "depth-choice", "unknown key encoder-depth-choice; HAT's keys are encoder-embed-choice, "),
        ("qkv-dim: 512\n", "", "missing key qkv-dim, "),
        ("encoder-embed-choice", "encoder-embed", "search space: missing key encoder_embed_dim$"),
        ("[512, 640]", "640", "search space: encoder_embed_dim: expected a list of integers, got 640$"),
        ("-choice", "-subtransformer", "a HAT subnet, not a search space; give it as --subnet$"),
    ],
)
def test_bad_space_file_of_hat(tmp_path, old, new, message):
    text, path = hat_text(SearchSpace.from_spec("wmt14_en_de")), tmp_path / "space.yml"
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        SearchSpace.from_spec(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_embed_dim": 48}, "encoder_embed_dim=48 is not in the search space; choices: 64, 32"),
        ({"decoder_layers": 2}, "decoder_layers=2 is not in the search space; choices: 3, 1"),
        ({"encoder_ffn_embed_dim": [128, 99]}, r"encoder_ffn_embed_dim\[1\]=99 is not .* choices: 128, 64"),
        ({"decoder_attention_heads": [2, 2, 1]}, r"decoder_attention_heads\[2\]=1 is not .* choices: 2"),
        ({"qkv_dim": 128}, "qkv_dim=128 is not in the search space, which has qkv_dim=64"),
        ({"qkv_dim": ..., "head_dim": 64}, "qkv_dim=None is not in the search space, which has qkv_dim=64"),
    ],
)
def test_check_names_field_value_and_choices(space_dict, subnet_dict, change, message):
    space, subnet = SearchSpace.from_dict(space_dict()), Subnet.from_dict(subnet_dict(**change))
    assert not space.contains(subnet)
    with pytest.raises(InputError, match=f"^{message}$"):
        space.check(subnet)


def test_a_part_has_the_choices_that_are_kept(space_dict):
    space = SearchSpace.from_dict(space_dict())
    part = space.narrowed({"encoder_layers": [1], "decoder_arbitrary_ende_attn": [-1, 1]})
    assert part == SearchSpace.from_dict(space_dict(encoder_layers=[1], decoder_arbitrary_ende_attn=[1, -1]))
    assert space.narrowed({}) == space


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"qkv_dim": [64]}, "'qkv_dim' is not an elastic dimension of this space, which has encoder_embed_dim, "),
        ({"encoder_layers": [7]}, "encoder_layers=7 is not in the search space; choices: 2, 1$"),
        ({"encoder_layers": []}, "encoder_layers: the list of choices is empty"),
        ({"encoder_layers": [2, 2]}, "encoder_layers: duplicate choice 2"),
    ],
)
def test_choices_that_a_space_lacks_are_refused(space_dict, choices, message):
    with pytest.raises(InputError, match=message):
        SearchSpace.from_dict(space_dict()).narrowed(choices)


def test_difference(space_dict):
    first = SearchSpace.from_dict(space_dict())
    second = SearchSpace.from_dict(space_dict(encoder_layers=[6, 2], qkv_dim=..., head_dim=16))
    assert first.difference(first) == ""
    assert first.difference(second) == ("encoder_layers: [2, 1] vs [6, 2]; qkv_dim: 64 vs None; head_dim: None vs 16")


def test_max_of_every_key(space_dict):
    space = SearchSpace.from_dict(space_dict())
    assert {key: space.max(key) for key in space.to_dict()} == {
        key: max(value) if isinstance(value, list) else value for key, value in space_dict().items()
    }
    with pytest.raises(InputError, match="'head_dim' is not a key of this search space"):
        space.max("head_dim")


def test_omegaconf_nodes_are_read_and_interpolations_are_not(space_dict, monkeypatch):
    assert SearchSpace.from_dict(OmegaConf.create(space_dict())) == SearchSpace.from_dict(space_dict())
    monkeypatch.setenv("MOS_TEST_DIM", "64")
    with pytest.raises(InputError, match=r"qkv_dim: expected an integer, got '\$\{oc.env:MOS_TEST_DIM\}'"):
        SearchSpace.from_dict(OmegaConf.create(space_dict(qkv_dim="${oc.env:MOS_TEST_DIM}")))
