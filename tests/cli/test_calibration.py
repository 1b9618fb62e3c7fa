"""mos-search --calibrate: few parameters of the best subnets train alone, and the subnets are ranked again."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import contextmanager

import pytest
import torch
from torch.distributed import TCPStore

from mos_fairseq.cli import export, search
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import EvaluationOptions, ModelEvaluator
from mos_fairseq.nas import workers
from mos_fairseq.search_space import Subnet
from mos_fairseq.standalone import calibration

from .conftest import ROOT

RANDOM = ["--algorithm", "random", "--num-subnets", "3", "--device", "cpu"]
STUDY = ROOT / "examples" / "studies" / "calibration" / "study.py"
CALIBRATE = ["--calibrate", "4", "--calibrate-top", "2", "--calibrate-lr", "0.01"]


def arguments(data, supernet, output, *options: str) -> list[str]:
    path = ["--path", str(supernet[0] / "checkpoint_last.pt")]
    return [str(data), *path, "--output", str(output), "--cache", str(output / "cache"), *RANDOM, *options]


def digest(supernet) -> str:
    return hashlib.sha256((supernet[0] / "checkpoint_last.pt").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def calibrated(commands, joined, supernet, tmp_path_factory):
    """Return (folder, digest of the supernet before) of a search whose best two were calibrated, in forks."""
    output, before = tmp_path_factory.mktemp("calibrated"), digest(supernet)
    commands.fork("mos-search", *arguments(joined, supernet, output, *CALIBRATE), threads=1)
    return output, before


def test_the_best_are_ranked_anew(calibrated, supernet):
    output, before = calibrated
    results = json.loads((output / "search.json").read_text())
    rows = results["calibrated"]
    assert sorted(row["place"] for row in rows) == [1, 2] and results["best"] == rows[0]
    assert rows[0]["calibrated"] <= rows[1]["calibrated"] and all(row["seconds"] > 0 for row in rows)
    assert Subnet.load(str(output / "best.yaml")) == Subnet.from_dict(rows[0]["architecture"])
    assert digest(supernet) == before


def test_only_norms_and_biases_differ_and_the_model_is_the_one_that_was_judged(calibrated, supernet, joined, tmp_path):
    output, _ = calibrated
    best = json.loads((output / "search.json").read_text())["best"]
    path = ["--path", str(supernet[0] / "checkpoint_last.pt"), "--output", str(tmp_path / "inherited.pt")]
    export.main([*path, "--subnet", str(output / "best.yaml")])
    inherited, model = (torch.load(p)["model"] for p in (tmp_path / "inherited.pt", output / "calibrated.pt"))
    assert inherited.keys() == model.keys()
    differ = {name for name in model if not torch.equal(model[name], inherited[name])}
    assert differ and all("norm" in name or name.endswith(".bias") for name in differ)
    evaluator = ModelEvaluator(str(output / "calibrated.pt"), str(joined), EvaluationOptions())
    assert evaluator.loss() == pytest.approx(best["calibrated"], abs=1e-6)


def test_a_second_run_trains_nothing(calibrated, joined, supernet, capsys, monkeypatch):
    output, _ = calibrated
    before = (output / "search.json").read_text()
    monkeypatch.setattr("subprocess.Popen", None)  # of the trainings
    search.main(arguments(joined, supernet, output, *CALIBRATE))
    results = json.loads((output / "search.json").read_text())
    assert results == json.loads(before)
    kept = [json.loads(path.read_text())["seconds"] for path in output.rglob("calibrated-*.json")]
    assert sorted(kept) == sorted(row["seconds"] for row in results["calibrated"])  # not rounded again
    assert re.search(r"place inherited +loss +calibrated +seconds", capsys.readouterr().out)


def test_trainings_have_the_threads_of_the_whole_machine(joined, supernet, tmp_path, monkeypatch):
    """Workers that judge share them; these have ended when the trainings begin."""

    @contextmanager
    def no_workers(number, prepare, threads):
        assert threads == torch.get_num_threads() == 1
        yield TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def train(trainings, at_once, threads):
        raise InputError(f"{threads} threads")

    monkeypatch.setattr(workers, "started", no_workers)
    monkeypatch.setattr(calibration, "train_all", train)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(InputError, match="^3 threads$"):
            search.main(arguments(joined, supernet, tmp_path, *CALIBRATE, "--workers", "2"))
    finally:
        torch.set_num_threads(before)


def test_without_it_nothing_of_it_stays(calibrated, joined, supernet):
    output, _ = calibrated
    search.main(arguments(joined, supernet, output))
    results = json.loads((output / "search.json").read_text())
    assert "calibrated" not in results and not (output / "calibrated.pt").exists()


def test_a_model_of_one_subnet_is_exported(supernet, tmp_path):
    """Calibrated and fine-tuned subnets are exported to fairseq's own model like those of a supernet."""
    path, twin = str(supernet[0] / "checkpoint_last.pt"), str(tmp_path / "twin.pt")
    export.main(["--path", path, "--subnet", "smallest", "--output", twin])
    for name, words in {"from_twin": [twin], "from_supernet": [path, "--subnet", "smallest"]}.items():
        export.main(["--path", *words, "--output", str(tmp_path / f"{name}.pt"), "--format", "fairseq"])
    mine, expected = (torch.load(tmp_path / f"{name}.pt")["model"] for name in ("from_twin", "from_supernet"))
    assert mine.keys() == expected.keys() and all(torch.equal(mine[key], expected[key]) for key in mine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--calibrate", "0"], "calibrate is 0"),
        (["--calibrate-top", "3"], "calibrate_top is 3: it has no effect without --calibrate UPDATES"),
        (["--calibrate", "3", "--calibrate-lr", "-1"], "calibrate_lr is -1.0: allowed are numbers above 0"),
        (["--calibrate", "3", "--calibrate-parts", "heads"], "calibrate_parts is heads: allowed are all, or norms"),
        (["--calibrate", "3", "--report-bleu"], "report_bleu with calibrate 3: it translates with inherited weights"),
    ],
)
def test_bad_options(joined, supernet, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        search.main(arguments(joined, supernet, tmp_path, *options))


def test_language_models_are_refused(monolingual, language_supernet, tmp_path):
    words = ["--path", str(language_supernet), "--output", str(tmp_path), *RANDOM, "--calibrate", "3"]
    with pytest.raises(InputError, match="calibrate"):
        search.main([str(monolingual), *words])


@pytest.mark.slow
def test_the_study_compares_with_training_alone(commands, joined, supernet, tmp_path):
    path = supernet[0] / "checkpoint_last.pt"
    given = [path, joined, tmp_path, "--subnet", "smallest", "--updates", 2, "--alone", 3]
    done = commands.python(STUDY, *given, check=True, plugin=True)
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row["subnet"] == "smallest" and len({row[key] for key in ("inherited", "finetuned_2", "alone")}) == 3
    for name in ("inherited", "calibrated_2", "finetuned_2"):
        bias = row[name] - row["alone"]
        cells = f"{bias:+.3f} ({bias:+.3f} to {bias:+.3f}) | {abs(bias):.3f} | nan | nan"
        assert f"\n| {name.replace('_', ', ')} | {cells} | " in done.out
