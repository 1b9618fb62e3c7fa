"""The forms in which a user names subnets."""

import json

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import SearchSpace, Subnet, resolve_subnet, split_specs, subnet_name


@pytest.fixture
def space(space_dict):
    return SearchSpace.from_dict(space_dict())


def test_resolve(space, subnet_dict, tmp_path):
    assert resolve_subnet("largest", space) == space.largest()
    assert resolve_subnet(" smallest ", space) == space.smallest()
    assert resolve_subnet("random:7", space) == space.sample_subnet("random", 7)
    assert len({resolve_subnet(f"random:{seed}", space) for seed in range(20)}) > 10
    subnet = Subnet.from_dict(subnet_dict())
    subnet.save(tmp_path / "one.yaml")
    assert resolve_subnet(str(tmp_path / "one.yaml"), space) == subnet
    assert resolve_subnet(subnet.key, space) == subnet
    # The width may be left to the space.
    assert resolve_subnet(json.dumps(subnet_dict(qkv_dim=...)), space) == subnet


def test_resolved_subnets_must_lie_in_the_space(space, subnet_dict, tmp_path):
    outside = Subnet.from_dict(subnet_dict(encoder_embed_dim=16))
    path = tmp_path / "one.yaml"
    outside.save(path)
    problem = "encoder_embed_dim=16 is not in the search space; choices: 64, 32$"
    with pytest.raises(InputError, match=f"^subnet {path}: {problem}"):
        resolve_subnet(str(path), space)
    with pytest.raises(InputError, match=f"^subnet '{{.*: {problem}"):
        resolve_subnet(outside.key, space)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "subnet '': no such file; allowed are largest, smallest, random:SEED"),
        ("Largest", "subnet 'Largest': no such file; allowed are largest, smallest, random:SEED"),
        ("none.yaml", "subnet 'none.yaml': no such file; allowed are "),
        ("a\0b", r"subnet 'a\\x00b': no such file; allowed are "),
        ("x" * 5000, "subnet 'x+...x+': no such file; allowed are "),
        ("random", "subnet 'random': no such file; allowed are "),
        ("random:", "subnet 'random:': SEED must be a whole number"),
        ("random:-1", "subnet 'random:-1': SEED must be a whole number"),
        ("random:1.5", "subnet 'random:1.5': SEED must be a whole number"),
        ("random:x", "subnet 'random:x': SEED must be a whole number"),
        ("{", "subnet '{': not valid JSON"),
        ("{}", "subnet: missing key encoder_embed_dim, decoder_embed_dim"),
        ('{"a": 1, "a": 2}', "subnet '.*': duplicate key a$"),
        ('{"a": ' + "9" * 5000 + "}", "subnet '.*': not valid JSON"),
        ('{"a": ' * 100_000, "subnet '.*': not valid JSON"),
    ],
)
def test_bad_specs(space, spec, message):
    with pytest.raises(InputError, match=f"^{message}") as caught:
        resolve_subnet(spec, space)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_what_is_no_text_or_no_subnet(space):
    with pytest.raises(InputError, match="is a dict: allowed are largest, smallest"):
        resolve_subnet({"a": 1}, space)
    with pytest.raises(InputError, match="subnet is 'smallest': allowed is a Subnet, as resolve_subnet"):
        space.check("smallest")


def test_names():
    assert subnet_name("largest") == "largest"
    assert subnet_name("smallest") == "smallest"
    assert subnet_name("random:7") == subnet_name("random:007") == "random7"
    assert subnet_name("/some/dir.x/best 100ms-v1.2.yaml") == "best_100ms_v1_2"
    first, second = subnet_name('{"a": 1, "b": [2]}'), subnet_name('{"b":[2],"a":1}')
    assert first == second != subnet_name('{"a": 2, "b": [2]}')
    assert first.startswith("subnet_") and len(first) == 15


def test_split():
    assert split_specs("largest") == ["largest"]
    assert split_specs("largest, random:3 ,a/b.yaml") == ["largest", "random:3", "a/b.yaml"]
    assert split_specs('{"a": [1, 2], "b": 3},smallest') == ['{"a": [1, 2], "b": 3}', "smallest"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "subnets '': an entry is empty"),
        ("largest,", "subnets 'largest,': an entry is empty"),
        ("largest,,smallest", "subnets .*: an entry is empty"),
        ("largest,largest", "subnets 'largest,largest': 'largest' is given twice$"),
        (
            "random:1,random:01",
            "subnets: 'random:1' and 'random:01' have the same name random1; names must differ$",
        ),
        ("a/x.yaml,b/x.yaml", "subnets: 'a/x.yaml' and 'b/x.yaml' have the same name x; names must differ$"),
        ("largest,...", r"subnet '\.\.\.': allowed are largest"),
        ("random:x", "subnet 'random:x': SEED must be a whole number"),
    ],
)
def test_bad_lists(text, message):
    with pytest.raises(InputError, match=f"^{message}"):
        split_specs(text)
