"""mos-gap and mos-finetune of masked language models: losses and perplexities of the same words."""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils

from mos_fairseq.checkpoints import read_checkpoint
from mos_fairseq.cli import finetune, gap
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation import EvaluationOptions, ModelEvaluator, SubnetEvaluator
from mos_fairseq.gap import read_table
from mos_fairseq.masked import examples_of
from mos_fairseq.search_space import Subnet, resolve_subnet
from tests.examples import conftest  # noqa: F401  makes the next importable
from tests.pretend_cuda import pretend_cuda
from tests.seeds import moved

from .test_masked_language_model import BLOCKS, LOG, MIDDLE, PLUGIN, spaces, text, training

import masked_words  # isort: skip

__all__ = ["spaces", "text"]  # fixtures
pytestmark = pytest.mark.slow
OPTIONS = EvaluationOptions(valid_subset="test")


@pytest.fixture(scope="module")
def supernet(commands, text, spaces, tmp_path_factory) -> Path:
    save_dir = tmp_path_factory.mktemp("masked_gap")
    options = ["--max-update", 1, "--lr", 0.0, "--disable-validation", "--dropout", 0.2, "--num-workers", 1]
    commands.fork("train", *training(text / "bin", save_dir, *options, space=spaces / "space.yaml"))
    return save_dir / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def measured(commands, text, spaces, supernet, tmp_path_factory):
    """Return (output folder, output); the supernet is untrained, standalone models learn with another seed."""
    output = tmp_path_factory.mktemp("gap")
    words = ["--path", supernet, "--subnet", spaces / "middle.yaml", "--metric", "loss", "--finetune-updates", "5"]
    words += ["--finetune-options", "--lr 0.01"]
    words += ["--max-update", 12, "--output", output, "--", "--seed", 5, "--mask-prob", 0.2, "--lr", 0.01]
    return output, commands.fork("mos-gap", "measure", text / "bin", *words)


def test_losses_and_perplexities(measured):
    rows = {row.metric: row for row in read_table(measured[0] / "gap.jsonl")}
    assert rows.keys() == {"loss", "ppl"}
    for name in ("inherited", "standalone"):
        assert getattr(rows["ppl"], name) == pytest.approx(2 ** getattr(rows["loss"], name))
    assert rows["loss"].inherited > rows["loss"].standalone and rows["loss"].inherited > rows["loss"].finetuned[5]
    reached = rows["loss"].finetuned[5] <= rows["loss"].standalone
    assert rows["loss"].extra_updates == (5 if reached else None) and rows["ppl"].extra_updates is None
    record = json.loads((measured[0] / "gap.json").read_text())
    assert {gap["metric"] for gap in record["gaps"]} == {"loss", "ppl"} and record["signature"] is None
    assert "ppl" in measured[1].out and "BLEU" not in measured[1].out + measured[1].err


def test_all_are_judged_on_the_words_that_the_supernet_is(text, supernet, measured):
    """The masks do not depend on a standalone model's seed and mask rate in training."""
    evaluator = SubnetEvaluator(str(supernet), str(text / "bin"), OPTIONS)
    row = read_table(measured[0] / "gap.jsonl")[0]
    assert row.inherited == evaluator.evaluate(Subnet.from_dict(MIDDLE))
    (path,) = (measured[0] / "standalone").glob("*/checkpoint_12.pt")
    examples = examples_of(checkpoint_utils.load_checkpoint_to_cpu(str(supernet))["cfg"])
    alone = ModelEvaluator(str(path), str(text / "bin"), OPTIONS, examples=examples)
    assert alone.set_fingerprint() == evaluator.set_fingerprint() and row.standalone == alone.loss()
    otherwise = ModelEvaluator(str(path), str(text / "bin"), OPTIONS)
    assert otherwise.set_fingerprint() != evaluator.set_fingerprint()


def test_the_recipes_losses_are_fairseqs(commands, text, supernet, tmp_path, capsys):
    """masked_words.py of bert_debian masks the same words for every model, whichever seed it was trained with."""
    state = read_checkpoint(str(supernet))
    paths = [str(tmp_path / folder / "model.pt") for folder in ("one", "other")]
    for path, seed in zip(paths, (moved(1), 77), strict=True):
        state["cfg"]["common"]["seed"] = state["cfg"]["task"]["seed"] = seed
        Path(path).parent.mkdir()
        torch.save(state, path)
    masked_words.main([str(text / "bin"), *paths, "--texts", "1000"])
    one, other = (json.loads((Path(path).parent / "masked.json").read_text()) for path in paths)
    assert one == other and len(one["bits"]) == len(one["words"]) == 21
    options = ["--task", "masked_lm_mos", "--subnet", "largest", "--valid-subset", "test", "--seed", 1, *BLOCKS, *LOG]
    row = commands.fork("validate", text / "bin", *PLUGIN, "--path", paths[1], *options, "--max-tokens", 60)
    assert float(row.rows("test")[-1]["test_loss"]) == pytest.approx(one["mean"], abs=0.001)
    capsys.readouterr()
    masked_words.main([str(text / "bin"), paths[0], "--texts", "1000"])
    assert capsys.readouterr().out.endswith(" bits a word, measured before\n")
    masked_words.main([str(text / "bin"), paths[0], "--texts", "4"])  # other texts are measured again
    fewer = json.loads((tmp_path / "one" / "masked.json").read_text())
    assert (fewer["bits"], fewer["words"]) == (one["bits"][:4], one["words"][:4])
    with pytest.raises(SystemExit):
        masked_words.main([str(text / "bin"), paths[0], "--texts", "0"])
    assert "--texts is 0: allowed are numbers from 1" in capsys.readouterr().err


def test_it_trains_by_fairseqs_own_task(measured):
    runs = list(measured[0].glob("*/*/run.json"))
    assert len(runs) == 2
    for run in runs:
        words = shlex.split(json.loads(run.read_text())["command"])
        assert words[words.index("--task") + 1] == "masked_lm" and words[words.index("--arch") + 1] == "roberta_subnet"
        assert words[words.index("--dropout") + 1] == "0.2" and words.count("--mask-prob") == 1
        assert words[words.index("--mask-prob") + 1] == "0.2"
    (finetuned,) = (measured[0] / "finetuned").glob("*/train.log")
    assert "loading pretrained model from" in finetuned.read_text()


def test_one_subnet_is_trained_on(commands, text, supernet, tmp_path):
    words = ["--path", supernet, "--subnet", "smallest", "--updates", 12, "--metric", "loss", "--output", tmp_path]
    words += ["--lr", 0.01]
    done = commands.fork("mos-finetune", text / "bin", *words)
    header, inherited, tuned = (line.split() for line in done.out.splitlines()[1:4])
    scores = json.loads((tmp_path / "finetune.json").read_text())["scores"]
    assert header == ["weights", "loss", "ppl"] and scores["finetuned"]["loss"] < scores["inherited"]["loss"]
    assert float(inherited[1]) == pytest.approx(scores["inherited"]["loss"], abs=1e-4)
    assert float(tuned[2]) == pytest.approx(2 ** scores["finetuned"]["loss"], abs=0.01)
    options = EvaluationOptions(valid_subset="valid")
    evaluator = SubnetEvaluator(str(supernet), str(text / "bin"), options)
    smallest = resolve_subnet("smallest", evaluator.space)
    assert scores["inherited"]["loss"] == pytest.approx(evaluator.evaluate(smallest), abs=1e-5)
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(tmp_path / "finetuned.pt")], arg_overrides={"data": str(text / "bin")}
    )
    assert model.subnet == smallest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "metric is bleu: models of family encoder_only are judged by loss"),
        (["--metric", "loss", "--remove-bpe"], "remove_bpe is @@ : it has no effect with metric loss"),
        (["--metric", "loss", "--reference", "x"], "reference is x: it has no effect with metric loss"),
    ],
)
def test_mistakes(text, supernet, tmp_path, log_level, options, message):
    path = [str(text / "bin"), "--path", str(supernet), "--subnet", "smallest", "--output", str(tmp_path / "out")]
    for main, words in ((gap.main, ["measure", *path]), (finetune.main, [*path, "--updates", "3"])):
        with pytest.raises(InputError) as error:
            main([*words, *options])
        assert str(error.value) == message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    if not options:
        with pytest.raises(InputError, match="^bootstrap is 10: it has no effect with metric loss$"):
            gap.main(["measure", *path, "--metric", "loss", "--bootstrap", "10"])


def test_on_a_gpu_the_host_waits_once_for_several_subnets(text, supernet):
    """Of a mini-batch it asks once where it is masked, and whether it is padded."""
    found = []
    for device in ("cpu", "cuda"):
        with pretend_cuda() if device == "cuda" else nullcontext([]) as waits:
            evaluator = SubnetEvaluator(str(supernet), str(text / "bin"), OPTIONS, device)
            subnets = [evaluator.space.largest(), evaluator.space.smallest()]
            found.append(list(evaluator.evaluate_all(subnets)))
            waits.clear()
            found.append(list(evaluator.evaluate_all(subnets)))
    assert len(waits) == 1, waits
    assert found[0] == found[1] and found[2] == found[3] == pytest.approx(found[0], rel=1e-4)
