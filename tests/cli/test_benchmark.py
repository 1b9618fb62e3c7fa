"""mos-benchmark end to end."""

import json

import pytest


def test_a_suite_gives_a_table_json_and_a_plot(commands, files, tmp_path):
    options = ["--search-space", "tiny", "--vocab-size", 40, "--tokens", 24, "--length", 6, "--repeats", 2]
    done = commands.fork("mos-benchmark", *options, "--suite", "search", "--threads", 1, "--output", tmp_path / "out")
    assert "judging a random candidate on" in done.out and "tokens/s  x " in done.out
    report = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert list(report["suites"]) == ["search"] and report["machine"]["threads"] == 1
    assert [row["variant"] for row in report["suites"]["search"][0]["rows"]] == ["none", "layer", "neuron"]
    assert (tmp_path / "out" / "search.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "trian"], "suite is trian: allowed are train, decode, memory, mixture, search, compile and all"),
        (["--repeats", 0], "repeats is 0: allowed are whole numbers from 2"),
    ],
)
def test_bad_options(commands, tmp_path, arguments, message):
    options = ["--search-space", "tiny", *arguments, "--output", "out"]
    assert message in commands.fork("mos-benchmark", *options, cwd=tmp_path, check=False).error()
    assert not list(tmp_path.iterdir())
