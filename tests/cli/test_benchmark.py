"""mos-benchmark end to end."""

import importlib
import json
import logging
import sys
from pathlib import Path

import pytest
import yaml

from mos_fairseq.modules import kernels
from tests.spaces import EVEN_SPACE

from .conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def one_layer(tmp_path) -> Path:
    """A search space of encoders and decoders of one layer."""
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(EVEN_SPACE | {"encoder_layers": [1], "decoder_layers": [1]}))
    return tmp_path / "space.yaml"


def test_a_suite_gives_a_table_json_and_a_plot(commands, one_layer, tmp_path):
    options = ["--search-space", one_layer, "--vocab-size", 40, "--tokens", 24, "--length", 6, "--repeats", 2]
    done = commands.fork("mos-benchmark", *options, "--suite", "search", "--threads", 1, "--output", tmp_path / "out")
    assert "judging a random candidate on" in done.out and "tokens/s  x " in done.out
    report = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert list(report["suites"]) == ["search"] and report["machine"]["threads"] == 1
    assert report["kernels"] == kernels.chosen().to_dict()
    assert [row["variant"] for row in report["suites"]["search"][0]["rows"]] == ["none", "layer", "neuron"]
    assert (tmp_path / "out" / "search.png").exists()


def test_on_a_gpu(commands, one_layer, tmp_path):
    """A simulated GPU: models and batches are on it, and its events measure the time."""
    sizes = ["--vocab-size", 40, "--tokens", 12, "--length", 6, "--repeats", 2]
    options = ["--search-space", one_layer, *sizes, "--device", "cuda", "--suite", "precision"]
    commands.fork("mos-benchmark", *options, "--output", tmp_path / "out", cuda=True)
    report = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert report["machine"]["processor"] == "pretended GPU" and report["options"]["device"] == "cuda"
    titles = [section["title"] for section in report["suites"]["precision"]]
    assert [title.split(",")[0] for title in titles[::2]] == ["update in fp32", "update in amp", "update in bf16"]
    for section in report["suites"]["precision"]:
        assert [row["variant"] for row in section["rows"]] == ["stock transformer", "none", "neuron"]
        assert all(row["median_ms"] > 0 for row in section["rows"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "trian"], "suite is trian: allowed are train, decode, memory, mixture, search, compile"),
        (["--suite", "train,"], "suite is train,: allowed are train, decode"),
        (["--suite", "all,train"], "suite is all,train: allowed are train, decode"),
        (["--suite", "train,train"], "suite is train,train: each is allowed once"),
        (["--device", "gpu"], "device is gpu: torch has no such device here"),
        (["--device", "mps"], "device is mps: allowed are cpu and cuda"),
        (["--repeats", 0], "repeats is 0: allowed are whole numbers from 2"),
        (["--search-space", "tiny_lm"], "mos-benchmark: for encoder_decoder, the search space is decoder_only"),
    ],
)
def test_bad_options(commands, tmp_path, arguments, message):
    options = ["--search-space", "tiny", *arguments, "--output", "out"]
    assert message in commands.fork("mos-benchmark", *options, cwd=tmp_path, check=False).error()
    assert not list(tmp_path.iterdir())


def test_generation_in_turn_with_stock_fairseq(commands, joined, supernet, tmp_path, monkeypatch, capsys):
    """Run examples/studies/benchmarks/generate.py, whose commands are forks here."""
    monkeypatch.setattr(logging.root.manager, "disable", 0)  # the script silences fairseq
    monkeypatch.syspath_prepend(ROOT / "examples" / "studies" / "benchmarks")
    generate = importlib.import_module("generate")

    def run(command: list[str]) -> str:
        done = commands.fork(command[0].removeprefix("fairseq-"), *command[1:])
        return done.out + done.err

    monkeypatch.setattr(generate, "run", run)
    options = ["--subnet", "smallest", "--rounds", "1", "--max-len-b", "9"]
    words = ["generate.py", str(joined), str(supernet[0] / "checkpoint_last.pt"), str(tmp_path), *options]
    monkeypatch.setattr(sys, "argv", words)
    generate.main()
    found = json.loads((tmp_path / "generate.json").read_text())
    assert found["sentences"] - 1 <= found["equal_hypotheses"] <= found["sentences"] and found["ratio"] > 0  # rounding
    assert f"{found['equal_hypotheses']} of {found['sentences']} hypotheses equal" in capsys.readouterr().out
