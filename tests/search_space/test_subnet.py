"""Subnet: canonical form, keys, files."""

import os
import pickle

import numpy as np
import pytest
import yaml

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import SearchSpace, Subnet

HAT_FILE = """\
arch: transformer_super
lr: 0.001
clip-norm: 0.0
encoder-embed-dim-subtransformer: 640
decoder-embed-dim-subtransformer: 512
encoder-ffn-embed-dim-all-subtransformer: [3072, 3072, 2048, 1024, 3072, 3072]
decoder-ffn-embed-dim-all-subtransformer: [2048, 3072, 1024, 1024, 1024, 1024]
encoder-layer-num-subtransformer: 6
decoder-layer-num-subtransformer: 2
encoder-self-attention-heads-all-subtransformer: [8, 8, 8, 8, 8, 4]
decoder-self-attention-heads-all-subtransformer: [8, 4, 8, 8, 8, 8]
decoder-ende-attention-heads-all-subtransformer: [4, 8, 8, 8, 8, 8]
decoder-arbitrary-ende-attn-all-subtransformer: [-1, 2, 1, 1, 1, 1]
"""


def test_absent_layers_carry_no_values(subnet_dict):
    long = Subnet.from_dict(subnet_dict(decoder_layers=1))
    short = Subnet.from_dict(
        subnet_dict(
            decoder_layers=1,
            decoder_ffn_embed_dim=[256],
            decoder_attention_heads=[2],
            decoder_ende_attention_heads=[4],
            decoder_arbitrary_ende_attn=[-1],
        )
    )
    assert long.decoder_ende_attention_heads == (4,)
    assert long.encoder_ffn_embed_dim == (128, 64)
    assert long == short and hash(long) == hash(short) and long.key == short.key


def test_one_number_is_repeated_for_every_layer(subnet_dict):
    scalar = Subnet.from_dict(subnet_dict(decoder_attention_heads=2, decoder_arbitrary_ende_attn=-1))
    assert scalar.decoder_attention_heads == (2, 2, 2)
    assert scalar.decoder_arbitrary_ende_attn == (-1, -1, -1)


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_embed_dim": 32},
        {"encoder_ffn_embed_dim": [64, 128]},
        {"decoder_arbitrary_ende_attn": [1, 1, 2]},
        {"qkv_dim": ..., "head_dim": 64},
    ],
)
def test_different_subnets_have_different_keys(subnet_dict, change):
    first, second = Subnet.from_dict(subnet_dict()), Subnet.from_dict(subnet_dict(**change))
    assert first != second
    assert first.key != second.key


def test_key_is_exact_and_independent_of_the_order_of_the_dict(subnet_dict):
    expected = (
        '{"encoder_embed_dim":64,"decoder_embed_dim":48,"encoder_layers":2,"decoder_layers":3,'
        '"encoder_ffn_embed_dim":[128,64],"encoder_attention_heads":[4,4],"decoder_ffn_embed_dim":[256,256,256],'
        '"decoder_attention_heads":[2,2,2],"decoder_ende_attention_heads":[4,2,4],'
        '"decoder_arbitrary_ende_attn":[-1,1,2],"qkv_dim":64}'
    )
    data = subnet_dict()
    assert Subnet.from_dict(data).key == expected
    assert Subnet.from_dict(dict(reversed(data.items()))).key == expected


def test_immutable_and_picklable(subnet_dict):
    subnet = Subnet.from_dict(subnet_dict())
    with pytest.raises(AttributeError, match="immutable"):
        subnet.qkv_dim = 128
    assert subnet.key
    assert pickle.loads(pickle.dumps(subnet)) == subnet


def test_numpy_integers_become_plain_ints(subnet_dict):
    subnet = Subnet.from_dict(subnet_dict(encoder_embed_dim=np.int64(64), encoder_attention_heads=[np.int32(4)] * 2))
    assert type(subnet.encoder_embed_dim) is int and type(subnet.encoder_attention_heads[0]) is int
    assert subnet.key == Subnet.from_dict(subnet_dict()).key


def test_defaults_fill_what_is_absent_only(subnet_dict):
    full = Subnet.from_dict(subnet_dict())
    assert Subnet.from_dict({"encoder_embed_dim": 32}, defaults=full.to_dict()) == full.replace(encoder_embed_dim=32)
    # A head_dim of the mapping's own rules out the defaults' qkv_dim: both together would be an error.
    assert Subnet.from_dict({"head_dim": 16}, defaults=full.to_dict()).head_dim == 16
    # null is 'not set'.
    assert Subnet.from_dict(subnet_dict(qkv_dim=None), defaults={"qkv_dim": 32}).qkv_dim == 32


def test_head_dim_needs_no_division(subnet_dict):
    subnet = Subnet.from_dict(subnet_dict(qkv_dim=..., head_dim=64, encoder_attention_heads=7))
    assert (subnet.qkv_dim, subnet.head_dim) == (None, 64)
    assert subnet.encoder_attention_heads == (7, 7)
    assert "qkv_dim" not in subnet.to_dict()


def test_cross_spans_are_clamped_to_the_encoder(subnet_dict):
    deep = Subnet.from_dict(subnet_dict(encoder_layers=6, encoder_ffn_embed_dim=64, encoder_attention_heads=4))
    assert deep.cross_spans == (1, 2, 3)
    assert Subnet.from_dict(subnet_dict(encoder_layers=2)).cross_spans == (1, 2, 2)
    assert Subnet.from_dict(subnet_dict(encoder_layers=1)).cross_spans == (1, 1, 1)


def test_summary_is_one_compact_line(subnet_dict):
    assert Subnet.from_dict(subnet_dict()).summary() == (
        "enc 2x64 ffn 128,64 heads 4*2 | dec 3x48 ffn 256*3 heads 2*3 cross 4,2,4 span 1,2,3 | qkv 64"
    )


def test_save_and_load(tmp_path, subnet_dict):
    for change in ({}, {"qkv_dim": ..., "head_dim": 16}):
        subnet = Subnet.from_dict(subnet_dict(**change))
        path = tmp_path / "one.yaml"
        subnet.save(path)
        assert Subnet.load(path) == subnet
        assert list(yaml.safe_load(path.read_text())) == list(subnet.to_dict())
        assert os.listdir(tmp_path) == ["one.yaml"]


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, subnet_dict, monkeypatch):
    path = tmp_path / "one.yaml"
    path.write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match=r"one\.yaml: cannot be written \(No space left on device\)$"):
        Subnet.from_dict(subnet_dict()).save(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["one.yaml"]


def test_width_absent_from_our_file_comes_from_the_space(tmp_path, subnet_dict, space_dict):
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(subnet_dict(qkv_dim=...)))
    with pytest.raises(InputError, match="exactly one of qkv_dim and head_dim is needed, got neither$"):
        Subnet.load(path)
    space = SearchSpace.from_dict(space_dict(qkv_dim=..., head_dim=32))
    assert Subnet.load(path, space).head_dim == 32
    path.write_text(yaml.safe_dump(subnet_dict(qkv_dim=128)))
    assert Subnet.load(path, space).qkv_dim == 128


def test_hat_file(tmp_path):
    path = tmp_path / "hat.yaml"
    path.write_text(HAT_FILE)
    expected = Subnet(
        encoder_embed_dim=640,
        decoder_embed_dim=512,
        encoder_layers=6,
        decoder_layers=2,
        encoder_ffn_embed_dim=(3072, 3072, 2048, 1024, 3072, 3072),
        encoder_attention_heads=(8, 8, 8, 8, 8, 4),
        decoder_ffn_embed_dim=(2048, 3072),
        decoder_attention_heads=(8, 4),
        decoder_ende_attention_heads=(4, 8),
        decoder_arbitrary_ende_attn=(-1, 2),
        qkv_dim=512,
    )
    assert Subnet.load(path) == expected
    space = SearchSpace.from_spec("wmt14_en_de")
    assert Subnet.load(path, space) == expected and space.contains(expected)
    narrow = SearchSpace.from_dict({**space.to_dict(), "qkv_dim": 256})
    assert Subnet.load(path, narrow).qkv_dim == 256
    path.write_text(HAT_FILE + "qkv-dim: 1024\n")
    assert Subnet.load(path, space).qkv_dim == 1024


def test_hat_file_with_the_options_of_its_training(tmp_path):
    """HAT's training takes a subnet's file and a common one, and users concatenate them."""
    path, alone = tmp_path / "whole.yaml", tmp_path / "hat.yaml"
    alone.write_text(HAT_FILE)
    options = "train-subtransformer: True\nadam-betas: (0.9, 0.98)\nfp16: True\nencoder-embed-dim: 640\nqkv-dim: 512\n"
    choices = "encoder-embed-choice: [640, 512]\n"
    path.write_text(options + HAT_FILE + choices)
    assert Subnet.load(path) == Subnet.load(alone)
    for text, message in (
        (options, "subnet: unknown key train-subtransformer"),
        (choices, "a HAT search space, not a subnet; give it as --search-space"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=f"^{path}: {message}"):
            Subnet.load(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("decoder-layer-num", "decoder-layers", "unknown key decoder-layers-subtransformer; HAT's keys are "),
        ("decoder-layer-num-subtransformer: 2\n", "", "subnet: missing key decoder_layers$"),
        ("2\nenc", "7\nenc", r"decoder_ffn_embed_dim: got 6 values .*, decoder_layers=7 needs 7$"),
    ],
)
def test_bad_hat_file(tmp_path, old, new, message):
    path = tmp_path / "hat.yaml"
    assert old in HAT_FILE
    path.write_text(HAT_FILE.replace(old, new))
    with pytest.raises(InputError, match=rf"^{path}: {message}"):
        Subnet.load(path)
