"""Every mistake in a space or subnet gives one line that names the field, the value and what is allowed."""

import pytest
import yaml

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import SearchSpace, Subnet

BAD_SPACES = [
    ({"encoder_layers": []}, "encoder_layers: the list of choices is empty, at least one is needed"),
    ({"encoder_layers": [2, 2]}, r"encoder_layers: duplicate choice 2 in \[2, 2\], each is allowed once"),
    ({"encoder_layers": [0]}, "encoder_layers: got 0, allowed are positive integers"),
    ({"encoder_layers": [10**9]}, "encoder_layers: got 1000000000, allowed are 1 to 1000 layers"),
    ({"encoder_ffn_embed_dim": [-64]}, "encoder_ffn_embed_dim: got -64, allowed are positive integers"),
    ({"encoder_embed_dim": [64.0]}, r"encoder_embed_dim: expected a list of integers, got \[64.0\]"),
    ({"encoder_embed_dim": [True]}, r"encoder_embed_dim: expected a list of integers, got \[True\]"),
    ({"encoder_embed_dim": ["640"]}, r"encoder_embed_dim: expected a list of integers, got \['640'\]"),
    ({"encoder_embed_dim": 640}, "encoder_embed_dim: expected a list of integers, got 640"),
    ({"encoder_embed_dim": None}, "encoder_embed_dim: expected a list of integers, got None"),
    ({"encoder_embed_dim": [None]}, r"encoder_embed_dim: expected a list of integers, got \[None\]"),
    ({"encoder_embed_dim": [[64]]}, r"encoder_embed_dim: expected a list of integers, got \[\[64\]\]"),
    ({"encoder_embed_dim": {"a": 1}}, "encoder_embed_dim: expected a list of integers, got {'a': 1}"),
    ({"encoder_embed_dim": "???"}, r"encoder_embed_dim: expected a list of integers, got '\?\?\?'"),
    ({"encoder_embed_dim": ["${qkv_dim}"]}, r"encoder_embed_dim: expected a list .*, got \['\${qkv_dim}'\]"),
    ({"encoder_embed_dim": ...}, "missing key encoder_embed_dim"),
    ({"encoder_embed": [64]}, "unknown key encoder_embed; allowed are encoder_embed_dim, .*, head_dim"),
    ({7: [64]}, "unknown key 7; allowed are .*"),
    ({"encoder_attention_heads": [4, 3]}, "encoder_attention_heads: 3 heads do not divide qkv_dim=64"),
    (
        {"decoder_ende_attention_heads": [128]},
        "decoder_ende_attention_heads: 128 heads do not divide qkv_dim=64",
    ),
    ({"decoder_arbitrary_ende_attn": [0]}, "decoder_arbitrary_ende_attn: got 0, allowed are -1, 1 and 2 .*"),
    ({"decoder_arbitrary_ende_attn": [3]}, "decoder_arbitrary_ende_attn: got 3, allowed are -1, 1 and 2 .*"),
    ({"decoder_arbitrary_ende_attn": ...}, "missing key decoder_arbitrary_ende_attn"),
    ({"qkv_dim": ...}, "exactly one of qkv_dim and head_dim is needed, got neither"),
    ({"head_dim": 16}, "exactly one of qkv_dim and head_dim is needed, got qkv_dim=64 and head_dim=16"),
    ({"qkv_dim": [64]}, r"qkv_dim: expected an integer, got \[64\]"),
    ({"qkv_dim": 64.5}, "qkv_dim: expected an integer, got 64.5"),
    ({"qkv_dim": ..., "head_dim": 0}, "head_dim: got 0, allowed are positive integers"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SPACES)
def test_bad_space(space_dict, tmp_path, change, message):
    data = space_dict(**{str(key): value for key, value in change.items()})
    if 7 in change:
        data = {**space_dict(), **change}
    with pytest.raises(InputError, match=f"^search space: {message}$"):
        SearchSpace.from_dict(data)
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match=f"^{path}: search space: {message}$"):
        SearchSpace.from_spec(str(path))


@pytest.mark.parametrize("value", [640, "64", {64}, ["64"], [64.0], [True]])
def test_the_constructor_checks_types_too(space_dict, value):
    with pytest.raises(InputError, match="^encoder_embed_dim: expected "):
        SearchSpace(**space_dict(encoder_embed_dim=value))


BAD_SUBNETS = [
    ({"encoder_embed_dim": True}, "encoder_embed_dim: expected an integer, got True"),
    ({"encoder_embed_dim": 64.0}, "encoder_embed_dim: expected an integer, got 64.0"),
    ({"encoder_embed_dim": "64"}, "encoder_embed_dim: expected an integer, got '64'"),
    ({"encoder_embed_dim": [64]}, r"encoder_embed_dim: expected an integer, got \[64\]"),
    ({"encoder_embed_dim": 0}, "encoder_embed_dim: got 0, allowed are positive integers"),
    ({"encoder_embed_dim": ...}, "subnet: missing key encoder_embed_dim"),
    ({"encoder_ffn": 64}, "subnet: unknown key encoder_ffn; allowed are .*"),
    ({"decoder_layers": 4}, r"decoder_ffn_embed_dim: got 3 values .*, decoder_layers=4 needs 4"),
    ({"decoder_layers": 10**12}, "decoder_layers: got 1000000000000, allowed are 1 to 1000 layers"),
    (
        {"encoder_ffn_embed_dim": [64, -1]},
        r"encoder_ffn_embed_dim\[1\]: got -1, allowed are positive integers",
    ),
    (
        {"encoder_embed_dim": 2**63},
        "encoder_embed_dim: got a number of 64 bits, allowed are up to 9,.*,807",
    ),
    (
        {"encoder_ffn_embed_dim": [64, -(10**900)]},
        r"encoder_ffn_embed_dim(\[1\])?: got a number of 2990 bits, .*",
    ),
    ({"encoder_ffn_embed_dim": [64, 64, 0]}, r"encoder_ffn_embed_dim\[2\]: got 0, allowed are positive .*"),
    ({"encoder_ffn_embed_dim": "6464"}, "encoder_ffn_embed_dim: expected an integer, got '6464'"),
    ({"encoder_ffn_embed_dim": None}, "encoder_ffn_embed_dim: expected an integer, got None"),
    ({"encoder_attention_heads": [4, 5]}, "encoder_attention_heads: 5 heads do not divide qkv_dim=64"),
    ({"decoder_attention_heads": 3}, "decoder_attention_heads: 3 heads do not divide qkv_dim=64"),
    (
        {"decoder_arbitrary_ende_attn": [1, 1, 3]},
        r"decoder_arbitrary_ende_attn\[2\]: got 3, allowed are -1, .*",
    ),
    ({"qkv_dim": ...}, "exactly one of qkv_dim and head_dim is needed, got neither"),
    ({"head_dim": 16}, "exactly one of qkv_dim and head_dim is needed, got qkv_dim=64 and head_dim=16"),
    ({"qkv_dim": 64.0}, "qkv_dim: expected an integer, got 64.0"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SUBNETS)
def test_bad_subnet(subnet_dict, tmp_path, change, message):
    data = subnet_dict(**change)
    with pytest.raises(InputError, match=f"^{message}$"):
        Subnet.from_dict(data)
    path = tmp_path / "subnet.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match=f"^{path}: {message}$"):
        Subnet.load(path)


BAD_FILES = [
    (b"", "the file is empty"),
    (b"# only a comment\n", "the file is empty"),
    (b"- 1\n- 2\n", "expected 'key: value' lines, got a list"),
    (b"just words", "expected 'key: value' lines, got a str"),
    (b"qkv_dim: 64\nqkv_dim: 32\n", "duplicate key qkv_dim in line 2"),
    (b"a: [1, 2\nb: 3\n", "expected ',' or ']', but got .* in line 2"),
    (
        b"a: !!python/object/apply:os.system ['true']\n",
        "could not determine a constructor for the tag .* in line 1",
    ),
    (b"? [1, 2]\n: 3\n", "found unhashable key in line 1"),
    (b"a: \xff\xfe\n", "not a UTF-8 text file"),
    (b"a: \x01\n", "not valid YAML .*"),
    (b"a: " + b"[" * 1500, "not valid YAML .*"),
    (b"a: " + b"9" * 5000, "not valid YAML .*"),
    (b"a: !!int\n", "not valid YAML .*"),
    (b"encoder_layers: 1\n1: 2\n", "(search space|subnet): unknown key 1; allowed are .*"),
    (b"on: 2\n", "(search space|subnet): unknown key True; allowed are .*"),
    (b"~: 2\n", "(search space|subnet): unknown key None; allowed are .*"),
    (b"self: 2\n", "(search space|subnet): unknown key self; allowed are .*"),
    (b"x: &x [*x]\n", "(search space|subnet): unknown key x; allowed are .*"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_bad_file(tmp_path, content, message):
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    for read in (SearchSpace.from_spec, Subnet.load):
        with pytest.raises(InputError, match=f"^{path}: {message}$") as caught:
            read(str(path))
        assert "\n" not in str(caught.value)


def test_self_containing_list(space_dict):
    loop = [64]
    loop.append(loop)
    with pytest.raises(InputError, match="^search space: encoder_embed_dim: expected a list of integers, got "):
        SearchSpace.from_dict(space_dict(encoder_embed_dim=loop))


def test_missing_file_and_unknown_preset(tmp_path):
    with pytest.raises(InputError, match="none.yaml: cannot be read"):
        Subnet.load(tmp_path / "none.yaml")
    for spec in ("wmt15", "", "none.yaml", str(tmp_path), "x\0y", "x" * 5000):
        with pytest.raises(
            InputError, match="no preset and no file of that name; presets: bert_bottleneck, bert_factorised, "
        ):
            SearchSpace.from_spec(spec)


@pytest.mark.parametrize("text", ["{", '{"qkv_dim": 1, "qkv_dim": 2}', "{}", '{"qkv_dim": NaN}'])
def test_bad_inline_space(text):
    with pytest.raises(InputError, match="^search space: (not valid JSON|duplicate key qkv_dim|missing key)"):
        SearchSpace.from_spec(text)


def test_saving_into_a_missing_folder(tmp_path, subnet_dict, space_dict):
    for thing in (Subnet.from_dict(subnet_dict()), SearchSpace.from_dict(space_dict())):
        with pytest.raises(InputError, match="cannot be written"):
            thing.save(tmp_path / "none" / "file.yaml")
