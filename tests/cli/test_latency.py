"""mos-latency end to end: measure, fit, predict, report."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from mos_fairseq.cli import latency
from mos_fairseq.latency.measured import HAT_COLUMNS, HAT_LATENCIES
from tests.processes import until

SMALL = ["--vocab-size", 20, "--src-len", 4, "--tgt-len", 3, "--beam", 2, "--warmup", 0, "--iterations", 5]


@pytest.fixture(scope="module")
def measured(commands, files, tmp_path_factory):
    path = tmp_path_factory.mktemp("latency") / "latency.jsonl"
    space = ["--search-space", files / "space.yaml"]
    number = ["--num-subnets", 24, "--repeats", 2]
    done = commands.fork("mos-latency", "measure", *space, *number, "--output", path, *SMALL)
    return path, done


def test_measure_fit_predict_report(commands, measured, files, tmp_path):
    path, done = measured
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 49 and "24 subnets" in done.out and "repeats of a subnet" in done.out and "48/48" in done.err
    assert len({json.dumps(row["subnet"]) for row in rows[1:]}) == 24
    output = ["--output", tmp_path / "predictor.json"]
    options = ["--held-out", 0.1, "--folds", 3, "--json", "--plot", tmp_path / "held-out.png"]
    fitted = json.loads(commands.fork("mos-latency", "fit", path, *output, *options).out)
    assert (fitted["subnets"], fitted["held_out_subnets"]) == (22, 2)
    assert (tmp_path / "held-out.png").read_bytes().startswith(b"\x89PNG")
    assert fitted["family"] in fitted["cross_validation"]
    specs = ["--subnet", f"largest,smallest,{files / 'middle.yaml'}"]
    lines = commands.fork("mos-latency", "predict", tmp_path / "predictor.json", *specs, "--json").out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [row["subnet"] for row in found] == specs[1].split(",") and all(row["latency_ms"] > 0 for row in found)
    plot = tmp_path / "plot.png"
    report = commands.fork("mos-latency", "report", tmp_path / "predictor.json", path, "--plot", plot, "--json")
    scores = json.loads(report.out)
    assert set(scores) == {"mape", "rmse", "kendall_tau", "r2", "training", "held_out"}
    assert scores["held_out"] == pytest.approx({"subnets": 2} | fitted["held_out"])  # products of other shapes
    assert scores["training"]["subnets"] == 22
    assert scores["mape"] == pytest.approx((22 * scores["training"]["mape"] + 2 * scores["held_out"]["mape"]) / 24)
    assert plot.read_bytes().startswith(b"\x89PNG")
    lines = commands.fork("mos-latency", "report", tmp_path / "predictor.json", path).out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "24 subnets",
        "  22 that it was fitted to",
        "  2 held out by `fit`",
    ]
    header, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:  # as on a day when the machine is three times as slow
        row |= {name: 3 * row[name] for name in row if name.startswith("raw_") or name == "reference_ms"}
    slow = "".join(json.dumps(row) + "\n" for row in [header, *rows])
    (tmp_path / "slow.jsonl").write_text(slow)
    again = commands.fork("mos-latency", "report", tmp_path / "predictor.json", tmp_path / "slow.jsonl", "--json")
    assert json.loads(again.out)["mape"] == pytest.approx(scores["mape"])


def test_report_tells_rows_that_fit_did_not_have(commands, measured, tmp_path):
    """A file that has grown since; and a predictor without a record of its rows."""
    path, _ = measured
    (tmp_path / "less.jsonl").write_text("".join(path.read_text().splitlines(keepends=True)[:23]))
    predictor = tmp_path / "predictor.json"
    commands.fork("mos-latency", "fit", tmp_path / "less.jsonl", "--output", predictor, "--folds", 2, "--held-out", 0)
    scores = json.loads(commands.fork("mos-latency", "report", predictor, path, "--json").out)
    assert (scores["training"]["subnets"], scores["new"]["subnets"]) == (22, 2) and "held_out" not in scores
    content = json.loads(predictor.read_text())
    predictor.write_text(json.dumps({key: content[key] for key in content if key not in ("training", "held_out")}))
    assert len(commands.fork("mos-latency", "report", predictor, path).out.splitlines()) == 1


def test_fit_shows_its_folds_on_a_terminal_only(measured, tmp_path, monkeypatch, capsys):
    arguments = ["fit", measured[0], "--output", tmp_path / "p.json", "--folds", 3, "--held-out", 0.1]
    latency.main(list(map(str, arguments)))
    assert "cross-validating" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    latency.main(list(map(str, arguments)))
    assert "cross-validating" in capsys.readouterr().err


def test_fit_says_how_many_subnets_are_missing(commands, measured, tmp_path):
    """Of 24 measured, a fifth is held out."""
    path, _ = measured
    error = commands.fork("mos-latency", "fit", path, "--output", tmp_path / "p.json", check=False).error()
    assert error == (
        "24 subnets are measured, 5 of them are held out: 19 are left to fit a predictor to, 20 are needed "
        "(measure 25 or more: mos-latency measure --num-subnets 25)"
    )
    few, options = tmp_path / "few.jsonl", ["--output", tmp_path / "p.json", "--held-out", 0]
    few.write_text("".join(path.read_text().splitlines(keepends=True)[:20]))
    error = commands.fork("mos-latency", "fit", few, *options, check=False).error()
    assert error == "19 subnets to fit a predictor to: at least 20 are needed"


def test_a_busy_machine_is_told(commands, measured, tmp_path):
    """Every reader of the file reports it: here fit and report, for a reference that took twice as long in the end."""
    header, *rows = [json.loads(line) for line in measured[0].read_text().splitlines()]
    cost = {key: 10.0 + index for index, key in enumerate(dict.fromkeys(json.dumps(row["subnet"]) for row in rows))}
    options = ["--held-out", 0, "--folds", 2, "--output", tmp_path / "p.json"]
    for factor in (1.0, 2.0):
        lines = [header]
        for index, row in enumerate(rows):
            drift = factor if index > 24 else 1.0
            raw_latency_ms = cost[json.dumps(row["subnet"])] * drift
            lines.append(row | {"reference_ms": 5.0 * drift, "raw_latency_ms": raw_latency_ms})
        (tmp_path / "made-up.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        fit = commands.fork("mos-latency", "fit", tmp_path / "made-up.jsonl", *options)
        report = commands.fork("mos-latency", "report", tmp_path / "p.json", tmp_path / "made-up.jsonl")
        message = "warning: the machine was busy: the reference subnet took 5.0 to 10.0 ms; "
        for done in (fit, report):
            assert (message in done.err) == (factor == 2.0), done.err
    assert "warning: the predictor is unsure: in cross-validation, " in fit.err  # the numbers are made up


def test_rows_of_averages_are_told_apart(commands, tmp_path):
    """Rows of two subnets may be equal: a row that was fitted to is no test of the other."""
    values = [[*[64 + i // 2] * 10, 5 + i // 2, 7] for i in range(40)]
    lines = [",".join(map(str, row)) for row in ((*HAT_COLUMNS, *HAT_LATENCIES), *values)]
    (tmp_path / "hat.csv").write_text("\n".join(lines) + "\n")
    predictor, options = tmp_path / "predictor.json", ["--folds", 2, "--held-out", 0.3, "--json"]
    fitted = json.loads(commands.fork("mos-latency", "fit", tmp_path / "hat.csv", "--output", predictor, *options).out)
    scores = json.loads(commands.fork("mos-latency", "report", predictor, tmp_path / "hat.csv", "--json").out)
    assert (fitted["subnets"], fitted["held_out_subnets"]) == (28, 12)
    assert scores["training"]["subnets"] + scores["held_out"]["subnets"] == 40
    assert 0 < scores["held_out"]["subnets"] < 12 and scores["held_out"]["subnets"] % 2 == 0


@pytest.mark.slow
def test_a_killed_measurement_goes_on(commands, files, tmp_path):
    path = tmp_path / "latency.jsonl"
    options = ["--search-space", files / "space.yaml", "--num-subnets", 4, "--output", path, *SMALL]
    # so often that no stall of the machine lets it end before it is killed
    running = commands.start("mos-latency", "measure", *options, "--repeats", 10_000)
    until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 3)
    assert running.kill().status == -signal.SIGKILL
    before = path.read_text()
    before = [json.loads(line) for line in before[: before.rfind("\n") + 1].splitlines()]
    assert len(before) >= 3
    commands.fork("mos-latency", "measure", *options)
    after = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(after) == max(41, len(before))
    for old, new in zip(before, after, strict=False):  # each line is unchanged, plus the fields known at the end
        assert old == {key: new[key] for key in old}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["measure", "--num-subnets", 1], "num_subnets is 1: allowed are whole numbers from 2"),
        (["measure", "--num-subnets", 10**9], "to the 17408 of the space"),
        (["measure", "--num-subnets", 3, "--iterations", 2], "iterations is 2"),
        (["fit", "absent.jsonl", "--output", "p.json"], "absent.jsonl: cannot be read"),
        (["predict", "absent.json", "--subnet", "largest"], "absent.json: cannot be read"),
        (["fit", "MEASURED", "--output", "p.json", "--held-out", 1.5], "held_out is 1.5"),
        (["fit", "MEASURED", "--output", "p.json", "--seed", -1], "seed is -1"),
        (["fit", "MEASURED", "--output", "p.json", "--held-out", 0, "--plot", "x.png"], "held_out is 0.0: --plot"),
    ],
)
def test_bad_input(commands, files, measured, tmp_path, arguments, message):
    if arguments[0] == "measure":
        arguments = ["measure", "--search-space", files / "space.yaml", "--output", "out.jsonl", *SMALL, *arguments[1:]]
    arguments = [measured[0] if argument == "MEASURED" else argument for argument in arguments]
    done = commands.fork("mos-latency", *arguments, cwd=tmp_path, check=False)
    assert message in done.error()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_commands_say_nothing_of_fairseqs_imports(commands, files):
    """Processes as users start them, with only the requested options."""
    assert commands.spawn("mos-cost", "--search-space", files / "space.yaml").err == ""
