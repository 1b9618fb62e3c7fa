"""Latency of an encoder on one machine and a decoder on another: parts that add up, and refusals."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from mos_fairseq import latency
from mos_fairseq.cli import latency as command
from mos_fairseq.errors import InputError
from mos_fairseq.latency import SPLIT_KEYS, Features, LatencyPredictor, SplitLatency, score
from mos_fairseq.latency.predictor import fit_family
from mos_fairseq.transfer import transfer_bytes
from tests.helpers import small_space

SPACE = small_space()
SUBNETS = [SPACE.sample_subnet("split", i) for i in range(60)]
OPTIONS = {"vocab_size": 20, "src_len": 9, "tgt_len": 5, "batch_size": 2, "beam": 2, "threads": 1}


def machine(factor: float, **options) -> LatencyPredictor:
    features = Features.of_subnets(SUBNETS, SPACE)
    encoder = np.array([factor * (1 + 0.01 * sum(s.encoder_ffn_embed_dim)) for s in SUBNETS])
    decoder = np.array([factor * (2 + 0.02 * sum(s.decoder_ffn_embed_dim)) for s in SUBNETS])
    fitted = fit_family("ridge", features, encoder, 1), fit_family("both", features, decoder, 1)
    parts = dict(zip(("encoder_ms", "decoder_ms"), fitted, strict=True))
    whole = fit_family("ridge", features, encoder + decoder, 1)
    return replace(whole, space=SPACE, parts=parts, measured={"options": OPTIONS | options})


DEVICE, SERVER = machine(5.0), machine(1.0, threads=4)


def test_parts_travel_in_the_file_and_add_up(tmp_path):
    DEVICE.save(tmp_path / "device.json")
    again = LatencyPredictor.load(tmp_path / "device.json")
    for name, values in DEVICE.predict_parts(SUBNETS).items():
        assert np.array_equal(again.predict_parts(SUBNETS)[name], values)
    found = SplitLatency(again, again, math.inf).costs(SUBNETS)
    total = [row["split_latency_ms"] for row in found]
    assert total == pytest.approx(sum(again.predict_parts(SUBNETS).values()))
    assert total == pytest.approx(again.predict(SUBNETS), rel=0.05)
    content = json.loads((tmp_path / "device.json").read_text())
    del content["parts"]["encoder_ms"]
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"bad.json: not a latency predictor \(its parts are decoder_ms\)"):
        LatencyPredictor.load(tmp_path / "bad.json")


def test_a_slower_connection_and_more_bytes_take_longer():
    rows = {mbps: SplitLatency(DEVICE, SERVER, mbps, 3.0).costs(SUBNETS) for mbps in (math.inf, 10, 1, 0.1)}
    for index, subnet in enumerate(SUBNETS):
        size = transfer_bytes(subnet, 9, "float32", 2)
        parts = [DEVICE.predict_parts([subnet])["encoder_ms"][0], SERVER.predict_parts([subnet])["decoder_ms"][0]]
        for mbps, found in rows.items():
            assert tuple(found[index]) == SPLIT_KEYS and found[index]["transfer_bytes"] == size
            assert found[index]["split_latency_ms"] == pytest.approx(sum(parts) + 3 + 8 * size / mbps / 1000)
    assert SplitLatency(DEVICE, SERVER, 1, transfer_dtype="int8").costs([subnet])[0]["transfer_bytes"] < size


def test_where_a_subnet_may_run():
    places = SplitLatency(DEVICE, SERVER, 1.0, 4.0).placements(SUBNETS[0])
    assert list(places) == ["device", "server", "split"]
    for row in places.values():
        assert row["total_ms"] == pytest.approx(sum(value for key, value in row.items() if key != "total_ms"))
    assert places["device"]["rtt_ms"] == places["device"]["sending_ms"] == 0
    assert places["server"]["sending_ms"] == pytest.approx(8 * 4 * 9 * 2 / 1000)
    assert places["split"]["encoder_ms"] == places["device"]["encoder_ms"] > places["server"]["encoder_ms"]
    assert places["split"]["decoder_ms"] == places["server"]["decoder_ms"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((DEVICE, SERVER, 0.0), "bandwidth_mbps is 0.0"),
        ((DEVICE, SERVER, math.nan), "bandwidth_mbps is nan"),
        ((DEVICE, SERVER, 1.0, -1.0), "rtt_ms is -1.0"),
        ((DEVICE, SERVER, 1.0, 0.0, "int4"), "transfer_dtype is int4"),
        ((DEVICE, replace(SERVER, parts={}), 1.0), "SERVER: encoder and decoder are not predicted apart; fit it with"),
        ((DEVICE, machine(1.0, beam=3), 1.0), "DEVICE was measured with beam=2, SERVER with 3"),
        ((DEVICE, replace(SERVER, space=small_space(encoder_layers=[2])), 1.0), "different search spaces"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SplitLatency(*arguments)


def test_every_part_that_is_unsure_is_told(tmp_path, monkeypatch, capsys):
    """By fit and by report, of subnets that were not fitted to: here the encoder's latency is chance."""
    features = Features.of_subnets(SUBNETS, SPACE)
    decoder = np.array([2 + 0.02 * sum(s.decoder_ffn_embed_dim) for s in SUBNETS])
    chance = np.random.default_rng(1).uniform(1, 9, len(SUBNETS))
    keys = np.array([subnet.key for subnet in SUBNETS])
    rows = command._Rows(features, decoder, keys, SPACE, {}, {"encoder_ms": chance, "decoder_ms": decoder})
    monkeypatch.setattr(command._Rows, "read", lambda *given: rows)

    def fit(features, values, space, *more, **options):
        found = fit_family("ridge", features, values, 1)
        scores = {"ridge": score(values, found.predict_features(features))}
        return replace(found, space=space, scores=scores), None

    monkeypatch.setattr(latency, "fit_predictor", fit)
    predictor = str(tmp_path / "p.json")
    command.main(["fit", "l.jsonl", "--output", predictor, "--target", "split", "--json"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the predictor of encoder_ms is unsure: of held-out subnets, Kendall's tau")
    for values, told in ((decoder, 0), (chance, 1)):
        rows = replace(rows, latency_ms=values)
        command.main(["report", predictor, "l.jsonl"])
        wanted = "warning: the predictor is unsure: of subnets held out by `fit`, Kendall's tau"
        assert capsys.readouterr().err.count(wanted) == told


def test_a_seed_without_random_subnets_is_refused(tmp_path):
    words = ["measure", "--search-space", "tiny", "--vocab-size", "20", "--output", str(tmp_path / "l.jsonl")]
    with pytest.raises(InputError, match="seed is 3: it has no effect with --subnet, only with --num-subnets"):
        command.main([*words, "--subnet", "largest", "--seed", "3"])
