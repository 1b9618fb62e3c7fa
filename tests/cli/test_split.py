"""Split computing end to end: from measurements to a search; and two processes with a connection between them."""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
from collections.abc import Callable

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import EvaluationOptions, SubnetEvaluator

from .conftest import ROOT, generation, same_words

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine(commands, files, joined, tmp_path_factory):
    """A predictor with parts, of both machines."""
    folder = tmp_path_factory.mktemp("machine")
    words = len((joined / "dict.xx.txt").read_text().splitlines()) + 4
    small = ["--src-len", 4, "--tgt-len", 3, "--beam", 2, "--warmup", 0, "--iterations", 5, "--repeats", 1]
    space = ["--search-space", files / "space.yaml", "--num-subnets", 20, "--vocab-size", words]
    measure = ["mos-latency", "measure", *space, *small, "--share-all-embeddings", "--output", folder / "latency.jsonl"]
    commands.fork(*measure)
    fit = ["mos-latency", "fit", folder / "latency.jsonl", "--folds", 2, "--held-out", 0]
    done = commands.fork(*fit, "--target", "split", "--output", folder / "split.json")
    assert "encoder_ms alone, " in done.out and "decoder_ms alone, " in done.out
    commands.fork(*fit, "--output", folder / "whole.json")
    return folder


SMALL = ["--population-size", 8, "--parents", 3, "--mutations", 3, "--crossovers", 3, "--iterations", 1]


def search(commands, joined, supernet, output, *options: object, **kwargs):
    path = ["--path", supernet[0] / "checkpoint_last.pt", "--output", output, "--cache", output / "cache"]
    return commands.fork("mos-search", joined, *path, *SMALL, *options, threads=1, **kwargs)


def test_search_for_a_device_and_a_server(commands, joined, supernet, machine, tmp_path):
    both = ["--split", machine / "split.json", machine / "split.json", "--rtt-ms", 2]
    losses = {}
    for dtype in ("float32", "int8"):
        slow = [*both, "--bandwidth-mbps", 0.1, "--transfer-dtype", dtype, "--constraint", "split_latency_ms<=90%"]
        done = search(commands, joined, supernet, tmp_path / dtype, *slow)
        results = json.loads((tmp_path / dtype / "search.json").read_text())
        best, places = results["best"], results["placements"]
        assert results["cost"] == "split_latency_ms" and best["split_latency_ms"] == places["split"]["total_ms"]
        assert best["split_latency_ms"] <= results["budgets"]["split_latency_ms"]
        sending = 8 * best["transfer_bytes"] / 100
        parts = best["encoder_ms"] + best["decoder_ms"] + 2 + sending
        assert best["split_latency_ms"] == pytest.approx(parts)
        assert "the best on" in done.out and "split is not the fastest" in done.err
        assert [line.split()[0] for line in done.out.splitlines() if line.startswith(("device", "server", "split"))]
        losses[dtype] = results["compared"]["largest"]["loss"]
    assert losses["int8"] != losses["float32"]  # judged through what is sent
    predicted = json.loads(
        commands.fork("mos-latency", "predict", machine / "split.json", "--subnet", "largest", "--json").out
    )
    assert predicted["encoder_ms"] > 0 and predicted["decoder_ms"] > 0


def test_quality_is_judged_through_the_rounding(joined, supernet):
    checkpoint = str(supernet[0] / "checkpoint_last.pt")
    plain, exact, rounded = (
        SubnetEvaluator(checkpoint, str(joined), EvaluationOptions(**options))
        for options in ({}, {"transfer_dtype": "float32"}, {"transfer_dtype": "float16"})
    )
    subnet = plain.space.largest()
    assert exact.fingerprint() == plain.fingerprint() != rounded.fingerprint()
    assert exact.evaluate(subnet) == plain.evaluate(subnet) != rounded.evaluate(subnet)
    assert rounded.evaluate(subnet) == pytest.approx(plain.evaluate(subnet), abs=0.01)
    with pytest.raises(InputError, match="transfer_dtype is int4"):
        EvaluationOptions(transfer_dtype="int4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bandwidth-mbps", 1], "bandwidth_mbps is 1.0: it has no effect without --split DEVICE SERVER"),
        (["--transfer-dtype", "int8"], "transfer_dtype is int8: it has no effect without --split"),
        (["--split", "split.json", "split.json"], "split needs the connection: --bandwidth-mbps B"),
        (["--split", "split.json", "whole.json", "--bandwidth-mbps", 1], "split SERVER: encoder and decoder are not"),
        (["--constraint", "split_latency_ms<=1"], "split_latency_ms needs two machines: --split DEVICE SERVER"),
        (["--predictor", "whole.json", "--cost", "encoder_ms"], "encoder_ms needs two machines"),
    ],
)
def test_what_is_missing_or_has_no_effect_is_refused(commands, joined, supernet, machine, tmp_path, options, message):
    options = [machine / option if str(option).endswith(".json") else option for option in options]
    assert message in search(commands, joined, supernet, tmp_path / "out", *options, check=False).error()
    assert not (tmp_path / "out").exists()


SPLIT = ROOT / "examples" / "studies" / "split" / "split_translate.py"


class Connection:
    """In the place of the device's: what is sent is decoded here."""

    def __init__(self, decode: Callable[[bytes], list[dict]]) -> None:
        self.decode, self.answers = decode, []

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None: ...

    def makefile(self, mode: str) -> Connection:
        return self

    def sendall(self, message: bytes) -> None:
        self.answers.append(json.dumps(self.decode(message)).encode())

    def readline(self) -> bytes:
        return self.answers.pop(0)


def test_two_processes_and_a_connection_translate_as_one(
    commands, joined, supernet, tmp_path, monkeypatch, capsys, log_level
):
    """The same hypotheses in float32; the number of bytes is as predicted in each dtype."""
    export = ["--path", supernet[0] / "checkpoint_last.pt", "--subnet", "largest", "--output", tmp_path / "twin.pt"]
    commands.fork("mos-export", *export)
    options = ["--gen-subset", "test", "--max-len-a", 1.2, "--batch-size", 3, "--required-batch-size-multiple", 1]
    done = commands.fork("generate", *generation(joined, tmp_path / "twin.pt", *options, task="translation"))
    expected = [words for _, words in sorted(done.hypotheses().items())]
    run = commands.python(
        SPLIT, "both", tmp_path / "twin.pt", joined, "--beam", 2, "--batch-size", 3, check=True, plugin=True
    )
    found = [words for _, (_, words) in sorted(run.found("H").items())]
    assert len(found) > 3 and same_words(found, expected)
    assert sent(run.err, "float32") > 0
    monkeypatch.setattr(logging.root.manager, "disable", 0)  # the script silences fairseq
    monkeypatch.syspath_prepend(SPLIT.parent)
    split = importlib.import_module(SPLIT.stem)
    connection = Connection(split.Decoding(*split.load(str(tmp_path / "twin.pt")), 2).hypotheses)
    monkeypatch.setattr(split.socket, "create_connection", lambda address: connection)
    words = ["device", tmp_path / "twin.pt", 0, joined, "--batch-size", 3, "--dtype", "int8"]
    monkeypatch.setattr(sys, "argv", [str(SPLIT), *map(str, words)])
    split.main()
    rounded = capsys.readouterr()
    assert rounded.out.count("H-") == len(found) and 0 < sent(rounded.err, "int8") < sent(run.err, "float32")


def sent(errors: str, dtype: str) -> int:
    """Return how many bytes the device sent, which are as many as foretold."""
    (said,) = [line for line in errors.splitlines() if line.startswith("sent ")]
    mine, foretold = re.fullmatch(rf"sent (\d+) bytes of {dtype}, foretold (\d+)", said).groups()
    assert mine == foretold
    return int(mine)
