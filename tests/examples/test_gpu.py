"""examples/gpu: refusals of the script, skipped parts, and the rows of its parts."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from tests.examples.conftest import EXAMPLES

SCRIPT = EXAMPLES / "gpu" / "run.sh"


def run(*args: object, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", str(SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=300)


def load_results():
    spec = importlib.util.spec_from_file_location("gpu_results", SCRIPT.with_name("results.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


results = load_results()


def test_parts_are_named():
    parts = run("--list").stdout.split()
    assert parts[:2] == ["data", "tests"] and parts[-1] == "study-neuron"
    text = SCRIPT.read_text("utf-8")
    assert all(f"part_{part.replace('-', '_')}() {{" in text for part in parts)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("args", "environment", "message"),
    [
        (["dance"], {}, "error: PART is dance: allowed are data tests"),
        (["tests"], {"PACKAGES": "gone.tar.xz"}, "error: PACKAGES is gone.tar.xz: no such file"),
        (["tests"], {"PYTHON": sys.executable}, "error: torch sees no GPU here"),
    ],
)
def test_mistakes_are_told(tmp_path, args, environment, message):
    if "PYTHON" in environment:  # with packages, nothing is installed
        (tmp_path / "packages").mkdir()
        subprocess.run(["tar", "-C", tmp_path, "-cJf", tmp_path / "packages.tar.xz", "packages"], check=True)
        environment = environment | {"PACKAGES": str(tmp_path / "packages.tar.xz")}
    done = run(tmp_path / "work", *args, **environment)
    assert done.returncode == 1 and done.stderr.startswith(message)
    assert not list((tmp_path / "work").glob("*.done"))


@pytest.mark.slow
def test_a_part_that_fails_is_not_done_and_others_are_left_out(tmp_path):
    """The study asks for the corpus; a part that is done is not run again."""
    tiny = {"PYTHON": sys.executable, "PACKAGES": str(tmp_path / "packages.tar.xz"), "MOS_GPU_TRIAL": "1"}
    (tmp_path / "packages").mkdir()
    subprocess.run(["tar", "-C", tmp_path, "-cJf", tiny["PACKAGES"], "packages"], check=True)
    work = tmp_path / "work"
    done = run(work, "study-none", **tiny)
    assert done.returncode == 1 and "WORK_DIR holds no corpus: run part data first" in done.stderr
    assert "study-none ended with status 1" in done.stderr and not (work / "study-none.done").exists()
    (work / "study-none.done").touch()
    done = run(work, "study-none", **tiny)
    assert done.returncode == 0 and done.stdout == done.stderr == ""


def test_rows(tmp_path, monkeypatch):
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase name="a" time="0.5"/><testcase name="b" time="1"><failure/></testcase>'
        '<testcase name="c" time="0"><skipped/></testcase></testsuite></testsuites>'
    )
    section = {"title": "t", "base": "x", "rows": [{"variant": "x", "median_ms": 2.0}, {"variant": "y", "ratio": 0.5}]}
    report = {"machine": {"processor": "G"}, "suites": {"train": [section]}}
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "benchmark.json").write_text(json.dumps(report))
    (tmp_path / "study-none").mkdir()
    values = {"test_loss": "3", "test_nll_loss_largest": "2.5", "test_nll_loss_random1": "2.75"}
    log = f"noise\n2026 | INFO | test | {json.dumps(values)}\n"
    (tmp_path / "study-none" / "validate.log").write_text(log)
    target = tmp_path / "results.jsonl"

    def add(kind: str, path: str, *more: str) -> None:
        monkeypatch.setattr(sys, "argv", ["results.py", kind, str(tmp_path / path), str(target), *more])
        results.main()

    for _ in range(2):  # a repeated part replaces its rows
        add("tests", "tests.xml")
        add("benchmark", "bench/benchmark.json")
        add("study", "study-none/validate.log", "none")
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["part"] for row in rows] == ["tests"] * 3 + ["bench"] * 2 + ["study-none"] * 2
    assert [row["outcome"] for row in rows[:3]] == ["passed", "failure", "skipped"]
    assert rows[4] == {
        "part": "bench",
        "suite": "train",
        "title": "t",
        "base": "x",
        "variant": "y",
        "ratio": 0.5,
        "device": "G",
    }
    assert [(row["subnet"], row["nll_loss"]) for row in rows[5:]] == [("largest", 2.5), ("random1", 2.75)]
