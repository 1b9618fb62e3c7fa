"""mos-diagnose end to end."""

from __future__ import annotations

import json

import pytest

from mos_fairseq.cli.diagnose import _different
from mos_fairseq.search_space import SearchSpace, resolve_subnet

pytestmark = pytest.mark.slow

ENCODER = {
    "family": "encoder_only",
    "encoder_embed_dim": [24],
    "encoder_layers": [2],
    "encoder_attention_heads": [4],
    "head_dim": 6,
}


def diagnose(commands, joined, path, output, *options: object, **kwargs):
    return commands.fork("mos-diagnose", joined, "--path", path, "--output", output, *options, **kwargs)


def test_two_checkpoints(commands, joined, supernet, tmp_path):
    paths = [f"last={supernet[0] / 'checkpoint_last.pt'}", "--path", f"best={supernet[0] / 'checkpoint_best.pt'}"]
    few = ["--num-subnets", 4, "--seed", 3, "--valid-samples", 9]
    done = diagnose(commands, joined, paths[0], tmp_path / "a", *paths[1:], *few)
    content = json.loads((tmp_path / "a" / "diagnosis.json").read_text())
    rows = content["layers"]["last"]
    assert content["subnets"] == ["largest", "smallest", *(f"random:{seed}" for seed in range(3, 7))]
    ffn = [row for row in rows if row["part"] == "ffn"]
    assert [(row["side"], row["layer"]) for row in ffn] == [(s, i) for s in ("encoder", "decoder") for i in (0, 1)]
    assert all(row["mixing_distance"] > 0 and row["expert_distance"] > 0 and row["cosine"] < 0.999 for row in ffn)
    lines = done.out.splitlines()
    assert lines[0].split() == ["last", "mixing", "experts", "cosine", "lowest", "conflicts"]
    assert lines[2].split()[:4] == ["encoder", "1", "ffn", f"{rows[1]['mixing_distance']:.3f}"]
    assert (tmp_path / "a" / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    # the same subnets and sentences again, of one of them
    again = diagnose(commands, joined, supernet[0] / "checkpoint_last.pt", tmp_path / "b", *few, "--json")
    for row, wanted in zip(json.loads(again.out)["supernet"], rows, strict=True):
        assert row == {k: pytest.approx(v, abs=1e-6) if isinstance(v, float) else v for k, v in wanted.items()}


def test_equal_subnets_count_once():
    space = SearchSpace.from_dict(ENCODER | {"encoder_ffn_embed_dim": [32, 24]})
    specs = ["largest", "smallest", *(f"random:{seed}" for seed in range(1, 7))]
    found = _different(specs, space)
    assert len(found) == space.size == 4 and list(found.values())[:2] == specs[:2]
    assert all(resolve_subnet(spec, space) == subnet for subnet, spec in found.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-subnets", -1], "num_subnets is -1"),
        (["--valid-samples", 0], "valid_samples is 0"),
        (["--valid-subset", "dev"], "dev"),
        (["--path", "other.pt"], "give each supernet a name of its own"),
        (["--path", "b=other.pt"], "checkpoint other.pt: no such file"),
        (["--device", "quantum"], "device is quantum"),
    ],
)
def test_bad_input(commands, joined, supernet, tmp_path, options, message):
    path = supernet[0] / "checkpoint_last.pt"
    assert message in diagnose(commands, joined, path, tmp_path / "out", *options, check=False).error()
    assert not (tmp_path / "out").exists()
