"""Latency: the right work is timed, drift is divided out, files go on where they stopped."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mos_fairseq import processor
from mos_fairseq.errors import InputError
from mos_fairseq.latency import LatencyOptions, LatencyPredictor, SubnetTimer, measured
from mos_fairseq.latency import file as latency_file
from mos_fairseq.latency import timer as latency
from mos_fairseq.latency.measured import read_latencies, trimmed_mean
from mos_fairseq.latency.timer import Latency, measure_subnet, summarise
from mos_fairseq.models import placeholder_dictionary
from mos_fairseq.modules import kernels
from mos_fairseq.search_space import SearchSpace, Subnet
from tests.helpers import small_space

SPACE = small_space()
OPTIONS = LatencyOptions(vocab_size=37, src_len=9, tgt_len=7, beam=3, batch_size=2, warmup=1, iterations=5)


@pytest.mark.parametrize("beam", [1, 3])
def test_what_is_timed(beam):
    """Encoder once; the decoder for each target token, for all beams, with its cache reordered in between."""
    options = LatencyOptions(vocab_size=37, src_len=9, tgt_len=7, beam=beam, batch_size=2)
    timer = SubnetTimer(SPACE.sample_subnet("timed"), options, placeholder_dictionary(37))
    encoder, decoder = timer.model.encoder, timer.model.decoder
    calls = {"encoder": [], "decoder": [], "reorder": 0}
    original = {"forward": decoder.forward, "encode": encoder.forward}
    original_reorder = decoder.reorder_incremental_state_scripting

    def decode(tokens, *args, **kwargs):
        calls["decoder"].append((tuple(tokens.shape), kwargs.get("incremental_state") is not None))
        return original["forward"](tokens, *args, **kwargs)

    def encode(src_tokens, **kwargs):
        calls["encoder"].append(tuple(src_tokens.shape))
        return original["encode"](src_tokens, **kwargs)

    def reorder(*args):
        calls["reorder"] += 1
        return original_reorder(*args)

    decoder.forward, encoder.forward, decoder.reorder_incremental_state_scripting = decode, encode, reorder
    found = timer.run()
    assert calls["encoder"] == [(2, 9)]
    assert calls["decoder"] == [((2 * beam, step + 1), True) for step in range(7)]
    assert calls["reorder"] >= 6
    assert 0 < found.encoder_ms < found.latency_ms == found.encoder_ms + found.decoder_ms


def test_weights_are_the_same_every_time_and_the_random_state_is_left_alone():
    state = torch.get_rng_state()
    first, second = (SubnetTimer(SPACE.largest(), OPTIONS, placeholder_dictionary(37)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_trimmed_mean():
    assert trimmed_mean([1.0, 2.0, 3.0, 4.0, 500.0], 0.2) == 3.0
    for values in ([], [1.0, math.nan], [1.0, 0.0], [math.inf]):
        with pytest.raises(ValueError, match="positive and finite"):
            trimmed_mean(values, 0.2)


class Clock:
    """Timers: 10 ms times a factor for the reference, 30 for others; the factor is the machine's drift."""

    def __init__(self):
        self.factor, self.runs = 1.0, []

    def timer(self, subnet, options, words):
        clock = self

        class Timer:
            def __init__(self):
                self.options = options

            def run(self):
                size = 10.0 if subnet == SPACE.smallest() else 30.0
                clock.runs.append(size)
                return Latency(0.25 * size * clock.factor, 0.75 * size * clock.factor)

        return Timer()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (latency, latency_file):
        monkeypatch.setattr(module, "SubnetTimer", clock.timer)
    return clock


def test_lines_are_as_timed(clock):
    reference = clock.timer(SPACE.smallest(), OPTIONS, None)
    clock.factor = 1.7
    row = measure_subnet(SPACE.largest(), reference, words=None)
    assert clock.runs == [10.0, 30.0] * 6  # in turn
    assert row["raw_latency_ms"] == pytest.approx(51) and row["reference_ms"] == pytest.approx(17)
    assert (row["raw_encoder_ms"], row["raw_decoder_ms"]) == (pytest.approx(12.75), pytest.approx(38.25))
    assert "latency_ms" not in row  # not known before all is measured
    assert summarise([Latency(1, 2)] * 5).latency_ms == 3


def test_a_file_is_continued(clock, tmp_path):
    path, subnets = tmp_path / "latency.jsonl", [SPACE.sample_subnet("file", i) for i in range(4)]
    latency_file.measure_to_file(path, SPACE, subnets[:2], OPTIONS, repeats=1)
    with open(path, "ab") as file:
        file.write(b'{"subnet": {"enco')  # killed while writing
    clock.runs = []
    found = latency_file.measure_to_file(path, SPACE, subnets, OPTIONS, repeats=1)
    assert len(clock.runs) == 2 * 2 * 6  # two subnets with their reference; measured ones are not run again
    assert (found.space, found.subnets) == (SPACE, subnets) and found.latency_ms == pytest.approx([30.0] * 4)
    read = read_latencies(path)
    assert read == found and read.repeats_std is None
    assert read.measured["options"]["tgt_len"] == 7 and read.measured["machine"]["torch"] == torch.__version__
    header = json.loads(path.read_text().splitlines()[0])
    assert header["options"]["beam"] == 3 and header["machine"]["torch"] == torch.__version__
    assert header["machine"]["processor"] == processor.name()


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_drift_is_divided_out(clock, tmp_path):
    """Corrected to the median of the reference over all lines, not to the first, which may be of a bad moment."""
    path, subnets = tmp_path / "latency.jsonl", [SPACE.sample_subnet("file", i) for i in range(5)]
    clock.factor = 2.5
    found = latency_file.measure_to_file(path, SPACE, subnets[:1], OPTIONS, repeats=1)
    assert found.latency_ms == pytest.approx([75])
    clock.factor = 1.2
    found = latency_file.measure_to_file(path, SPACE, subnets, OPTIONS, repeats=1)
    assert found.latency_ms == pytest.approx([1.2 * 30] * 5)
    assert read_latencies(path) == found
    header, first, *_ = lines_of(path)
    assert header["reference_ms"] == pytest.approx(12) and first["raw_latency_ms"] == pytest.approx(75)


def test_latencies_of_a_faster_day_compare(clock, tmp_path):
    """A predictor's milliseconds and those of measurements after it are of the same machine speed."""
    path, subnets = tmp_path / "latency.jsonl", [SPACE.sample_subnet("file", i) for i in range(4)]
    before = latency_file.measure_to_file(path, SPACE, subnets[:1], OPTIONS, repeats=1)
    clock.factor = 0.5
    after = latency_file.measure_to_file(path, SPACE, subnets, OPTIONS, repeats=1)
    assert (before.latency_ms, after.latency_ms) == (pytest.approx([30]), pytest.approx([15] * 4))
    compared = after.at_speed_of(before.measured)
    assert compared.latency_ms == pytest.approx([30] * 4)
    assert compared.measured["reference_ms"] == pytest.approx(10)
    for part, values in after.parts_ms.items():
        assert compared.parts_ms[part] == pytest.approx([2 * ms for ms in values])
    assert compared.reference_ms == after.reference_ms and compared.busy() == after.busy()  # as it was measured
    earlier = {part: value for part, value in before.measured.items() if part != "reference_ms"}
    assert after.at_speed_of(earlier) == after
    elsewhere = before.measured | {"machine": before.measured["machine"] | {"processor": "another"}}
    assert after.at_speed_of(elsewhere) == after  # its speed says nothing about this one's


def test_the_files_latency_ms_is_what_is_reported(clock, tmp_path, monkeypatch):
    path, subnets = tmp_path / "latency.jsonl", [SPACE.sample_subnet("file", i) for i in range(3)]
    factors = iter([1.0, 1.5, 3.0, 1.25, 2.0, 1.75, 1.125, 2.5, 1.0])
    scatter = iter([1.0, 1.125, 0.875, 1.25, 1.0, 0.75, 1.0, 1.0, 1.5])

    def measure(subnet, reference, words) -> dict:
        clock.factor = next(factors)
        row = measure_subnet(subnet, reference, words)
        return row | {"raw_latency_ms": row["raw_latency_ms"] * next(scatter)}

    monkeypatch.setattr(latency_file, "measure_subnet", measure)
    for repeats in (1, 3):  # the second run moves the median, so the first run's lines change
        found = latency_file.measure_to_file(path, SPACE, subnets, OPTIONS, repeats)
        reported = {subnet.key: ms for subnet, ms in zip(found.subnets, found.latency_ms, strict=True)}
        header, *rows = lines_of(path)
        assert len(rows) == 3 * repeats
        assert all(row["latency_ms"] == reported[Subnet.from_dict(row["subnet"]).key] for row in rows)
        assert header["reference_ms"] == found.reference_ms[1] and read_latencies(path) == found


def test_an_unfinished_file_has_no_latency_ms(clock, tmp_path, monkeypatch):
    """The latency that an earlier run wrote is no longer right after another line has changed the median."""
    path, subnets = tmp_path / "latency.jsonl", [SPACE.sample_subnet("file", i) for i in range(3)]
    latency_file.measure_to_file(path, SPACE, subnets[:2], OPTIONS, repeats=1)
    assert all("latency_ms" in row for row in lines_of(path)[1:])
    clock.factor = 3.0

    def stop(row):
        if len(lines_of(path)) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        latency_file.measure_to_file(path, SPACE, subnets, OPTIONS, repeats=2, on_measured=stop)
    header, *rows = lines_of(path)
    assert len(rows) == 3 and not any("latency_ms" in row for row in rows) and "reference_ms" not in header
    assert read_latencies(path).latency_ms == pytest.approx([30.0] * 3)


def test_torchs_threads_are_put_back(clock, tmp_path, monkeypatch):
    before, used = torch.get_num_threads(), []
    run = clock.timer

    def timer(*args):
        used.append(torch.get_num_threads())
        return run(*args)

    monkeypatch.setattr(latency_file, "SubnetTimer", timer)
    options = replace(OPTIONS, threads=before + 1)
    latency_file.measure_to_file(tmp_path / "a.jsonl", SPACE, [SPACE.largest()], options, repeats=1)
    arguments = (tmp_path / "b.jsonl", SPACE, [SPACE.largest()], OPTIONS)
    latency_file.measure_to_file(*arguments, repeats=1, threads=before + 2)
    assert used == [before + 1, before + 2] and torch.get_num_threads() == before
    assert lines_of(tmp_path / "b.jsonl")[0]["machine"]["threads"] == before + 2


def test_repeats_go_through_the_whole_list_and_are_averaged(clock, tmp_path):
    path, subnets = tmp_path / "latency.jsonl", [SPACE.sample_subnet("file", i) for i in range(4)]

    def measured() -> list[dict]:
        return [json.loads(line)["subnet"] for line in path.read_text().splitlines()[1:]]

    latency_file.measure_to_file(path, SPACE, subnets, OPTIONS, repeats=1)
    # nor are disturbed visits given another weight
    content = path.read_text().replace('"raw_latency_ms":30.0', '"raw_latency_ms":36.0')
    path.write_text(content.replace('"std_ms":0.0', '"std_ms":9.0'))
    shown = []
    found = latency_file.measure_to_file(path, SPACE, subnets, OPTIONS, repeats=3, on_measured=shown.append)
    assert len(shown) == len(measured()) == 12  # the first four are reused
    wanted = [subnet.to_dict() for subnet in subnets]
    passes = [measured()[begin : begin + 4] for begin in (0, 4, 8)]
    assert passes[0] == wanted
    assert all(sorted(map(str, one)) == sorted(map(str, wanted)) for one in passes)
    assert passes[1] != wanted or passes[2] != wanted
    assert found.latency_ms == pytest.approx([32.0] * 4)
    assert found.repeats_std == pytest.approx(100 * 12**0.5 / 32)  # of 36, 30, 30
    assert read_latencies(path) == found
    with pytest.raises(InputError, match="repeats is 0"):
        latency_file.measure_to_file(path, SPACE, subnets, OPTIONS, repeats=0)


def test_a_file_can_be_checked_before_hours_of_other_work(clock, tmp_path):
    path = tmp_path / "latency.jsonl"
    latency_file.check_latency_file(path, SPACE, OPTIONS)
    assert not path.exists()
    latency_file.measure_to_file(path, SPACE, [SPACE.largest()], replace(OPTIONS, threads=1), repeats=1)
    latency_file.check_latency_file(path, SPACE, replace(OPTIONS, threads=1))
    with pytest.raises(InputError, match="options threads=1, this run has 2"):
        latency_file.check_latency_file(path, SPACE, replace(OPTIONS, threads=2))
    path.write_text("notes")
    with pytest.raises(InputError, match="not a latency file"):
        latency_file.check_latency_file(path, SPACE, OPTIONS)


def test_visits_that_were_disturbed_do_not_count(tmp_path):
    path, subnet = tmp_path / "latency.jsonl", SPACE.largest().to_dict()
    header = {"format": latency_file.FORMAT, "search_space": SPACE.to_dict()}
    times = [10.0, 11.0, 12.0, 13.0, 400.0, 9.0, 11.0, 1.0]  # without two at either end: 10, 11, 11, 12
    rows = [{"subnet": subnet, "raw_latency_ms": ms, "reference_ms": 5.0} for ms in times]
    path.write_text("".join(json.dumps(line) + "\n" for line in [header, *rows]))
    assert read_latencies(path).latency_ms == [11.0]


@pytest.mark.parametrize("content", ['{"family": "ridge"}', "notes", '{"a": 1}\n{"half'])
def test_other_files_are_not_overwritten(clock, tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not a latency file"):
        latency_file.measure_to_file(path, SPACE, [SPACE.largest()], OPTIONS)
    assert path.read_text() == content


def test_a_file_killed_in_its_first_line_begins_again(clock, tmp_path):
    path = tmp_path / "latency.jsonl"
    path.write_text('{"format":"mos-lat')
    latency_file.measure_to_file(path, SPACE, [SPACE.largest()], OPTIONS)
    assert len(read_latencies(path).subnets) == 1


def test_a_file_of_another_run_is_refused(clock, tmp_path):
    path, subnets = tmp_path / "latency.jsonl", [SPACE.largest()]
    latency_file.measure_to_file(path, SPACE, subnets, OPTIONS)
    before = path.read_bytes()
    other = LatencyOptions(vocab_size=37, src_len=9, tgt_len=7, beam=4, batch_size=2, warmup=1, iterations=5)
    with pytest.raises(InputError, match="options beam=3, this run has 4"):
        latency_file.measure_to_file(path, SPACE, subnets, other)
    with pytest.raises(InputError, match=r"search_space encoder_layers=\[3, 1\], this run has \[3\]"):
        latency_file.measure_to_file(path, small_space(encoder_layers=[3]), [], OPTIONS)
    assert path.read_bytes() == before


def test_kernels_are_recorded_and_others_refused(clock, tmp_path):
    path, subnets = tmp_path / "latency.jsonl", [SPACE.largest()]
    with kernels.using(kernels.ZEN4):
        latency_file.measure_to_file(path, SPACE, subnets, OPTIONS, repeats=1)
    assert lines_of(path)[0]["kernels"] == read_latencies(path).measured["kernels"] == kernels.ZEN4.to_dict()
    before = path.read_bytes()
    for other, message in (
        (kernels.TORCH, "kernels name=AMD Zen 4, this run has torch"),
        (replace(kernels.ZEN4, filled_weight=3), "kernels filled_weight=1048576, this run has 3"),
    ):
        with kernels.using(other), pytest.raises(InputError, match=message):
            latency_file.measure_to_file(path, SPACE, subnets, OPTIONS)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"subnet": {}, "latency_ms": 3.0}', "line 2 is no measured subnet"),
        ('{"raw_latency_ms": 3.0, "reference_ms": 1.0}', "line 2 is no measured subnet"),
        (json.dumps({"subnet": SPACE.largest().to_dict(), "latency_ms": 3.0}), "line 2 is no measured subnet"),
        (
            json.dumps({"subnet": SPACE.largest().to_dict(), "raw_latency_ms": "x", "reference_ms": 1.0}),
            "line 2 is no measured subnet",
        ),
        (
            json.dumps({"subnet": SPACE.largest().to_dict(), "raw_latency_ms": -1.0, "reference_ms": 1.0}),
            "raw_latency_ms is -1.0",
        ),
        (
            json.dumps({"subnet": SPACE.largest().to_dict(), "raw_latency_ms": 1.0, "reference_ms": 0}),
            "reference_ms is 0.0",
        ),
        ("", "line 2 is not valid JSON"),
        (None, "holds no measured subnet"),
        (
            json.dumps(
                {
                    "subnet": small_space(encoder_embed_dim=[16]).largest().to_dict(),
                    "raw_latency_ms": 1.0,
                    "reference_ms": 1.0,
                }
            ),
            "line 2: encoder_embed_dim=16 is not in the search space",
        ),
    ],
)
def test_damaged_files(clock, tmp_path, line, message):
    path = tmp_path / "latency.jsonl"
    latency_file.measure_to_file(path, SPACE, [], OPTIONS)
    with open(path, "a") as file:
        file.write("" if line is None else line + "\n")
    with pytest.raises(InputError, match=message):
        read_latencies(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 4}, "iterations is 4: allowed are whole numbers from 5"),
        ({"tgt_len": 1}, "tgt_len is 1"),
        ({"beam": 19}, "beam is 19: allowed is less than half the vocabulary"),
        ({"dtype": "int8"}, "dtype is int8: allowed are float32"),
        ({"device": "nonsense"}, "device is nonsense"),
        ({"device": "meta"}, "device is meta: allowed are cpu and cuda"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_bad_options(change, message):
    with pytest.raises(InputError, match=message):
        LatencyOptions(**({"vocab_size": 37} | change))


def test_hat_csv(tmp_path):
    path = tmp_path / "hat.csv"
    columns = [*measured.HAT_COLUMNS, *measured.HAT_LATENCIES, "latency_std_encoder", "latency_std_decoder"]
    values = [640, 6, 1194.5, 4.5, 512, 3, 1877, 4, 5, 2, 9.5, 236.5, 0.1, 12.7]
    path.write_text(",".join(columns) + "\n" + ",".join(map(str, values)) + "\n")
    assert measured.read_hat_csv(path) == ([values[:10]], [246.0])
    for text, message in [
        ("", "no measured subnet"),
        ("a,b\n1,2\n", "lacks the column encoder_embed_dim"),
        (",".join(columns) + "\n" + ",".join(["x"] * 14) + "\n", "line 2 holds something that is no number"),
        (",".join(columns) + "\n" + ",".join(["nan"] * 14) + "\n", "line 2: latency is nan"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            measured.read_hat_csv(path)


GOLDEN = Path(__file__).parents[1] / "golden" / "latency"


def test_files_of_format_1_are_read_to_the_same_meaning(tmp_path):
    """A file, and a predictor fitted to it, from the version before ``latency_ms`` was the reported value."""
    wanted = json.loads((GOLDEN / "read.json").read_text())
    found = read_latencies(GOLDEN / "latency.jsonl")
    assert found.latency_ms == pytest.approx(wanted["latency_ms"], rel=1e-12)
    assert found.repeats_std == pytest.approx(wanted["repeats_std"], rel=1e-12)
    predictor = LatencyPredictor.load(GOLDEN / "predictor.json")
    rows = [json.loads(line) for line in (GOLDEN / "predicted.jsonl").read_text().splitlines()]
    predicted = predictor.predict([Subnet.from_dict(row["architecture"]) for row in rows])
    assert predicted == pytest.approx([row["latency_ms"] for row in rows], rel=1e-12)


def test_a_file_of_format_1_is_continued(clock, tmp_path, monkeypatch, use_kernels):
    path = tmp_path / "latency.jsonl"
    path.write_text((GOLDEN / "latency.jsonl").read_text())
    before = read_latencies(path)
    header = json.loads(path.read_text().splitlines()[0])
    assert header["format"] == "mos-latency 1"
    monkeypatch.setattr(latency_file, "machine", lambda *_: header["machine"])
    space, options = SearchSpace.from_dict(header["search_space"]), LatencyOptions(**header["options"])
    with kernels.using(kernels.TORCH), pytest.raises(InputError, match="kernels enabled=True, this run has False"):
        latency_file.measure_to_file(path, space, before.subnets, options, repeats=2)
    use_kernels()
    found = latency_file.measure_to_file(path, space, before.subnets, options, repeats=2)
    assert found == before  # nothing was missing
    header, *rows = lines_of(path)
    assert header["format"] == "mos-latency 2" and "kernels" not in header  # the thresholds at that time are unknown
    assert {row["latency_ms"] for row in rows} == set(before.latency_ms)


def made_up(tmp_path, references, scatter=0.0):
    """Write a file of one subnet for every two of ``references``, whose two visits differ by the share ``scatter``."""
    path = tmp_path / "made-up.jsonl"
    rows = [{"format": measured.FORMAT, "search_space": SPACE.to_dict()}]
    for number, reference_ms in enumerate(references):
        raw = 3 * reference_ms * (1 + scatter * (number % 2))
        subnet = SPACE.sample_subnet("busy", number // 2).to_dict()
        rows.append({"subnet": subnet, "raw_latency_ms": raw, "reference_ms": reference_ms})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_latencies(path)


def test_a_busy_machine_shows(tmp_path):
    """By the reference's drift, where a few bad moments do not count, and by the scatter of a subnet's visits."""
    assert made_up(tmp_path, [40.0] * 38 + [90.0] * 2).busy() is None
    assert made_up(tmp_path, [40.0 + 0.2 * i for i in range(40)]).busy() is None  # a fifth from end to end
    found = made_up(tmp_path, [40.0] * 20 + [60.0] * 20).busy()
    assert found.startswith("the machine was busy: the reference subnet took 40.0 to 60.0 ms; ")
    assert made_up(tmp_path, [40.0] * 40, scatter=0.1).busy() is None  # a standard deviation of 6.7 %
    found = made_up(tmp_path, [40.0] * 40, scatter=0.2).busy()
    assert found.startswith("the machine was busy: repeats of a subnet differ by 12.9 % (std); ")
