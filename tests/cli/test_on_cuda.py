"""fairseq's and our commands where torch finds a (simulated) GPU: they succeed with the CPU's results."""

from __future__ import annotations

import importlib
import json
import math
import sys
from contextlib import nullcontext

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.logging import metrics

from mos_fairseq.evaluation.evaluator import EvaluationOptions, SubnetEvaluator
from tests.cli.conftest import generation, same_translations, trainer_of, training
from tests.pretend_cuda import Wait, pretend_cuda
from tests.spaces import EVEN_SPACE

STOCK_SIZES = {"encoder-layers": 2, "decoder-layers": 2, "encoder-embed-dim": 24, "decoder-embed-dim": 24}
STOCK_SIZES |= {"encoder-ffn-embed-dim": 32, "decoder-ffn-embed-dim": 32}


def waits_of_update(args: list[object]) -> list[Wait]:
    """Return the host waits of an update of two mini-batches, without logging; an earlier update has made tables of
    positions."""
    with pretend_cuda() as waits:
        trainer = trainer_of(args)
        batches = iter(trainer.get_train_iterator(1, load_dataset=False).next_epoch_itr(shuffle=False))
        with metrics.aggregate(new_root=True):
            trainer.train_step([next(batches)])
            waits.clear()
            trainer.train_step([next(batches), next(batches)])
        assert trainer.get_num_updates() == 2
        return list(waits)


def stock(data, save_dir, *more: object) -> list[object]:
    sizes = [x for name, value in STOCK_SIZES.items() for x in (f"--{name}", value)]
    smoothed = {"task": "translation", "arch": "transformer", "criterion": "label_smoothed_cross_entropy"}
    return training(data, save_dir, *sizes, *more, **smoothed)


@pytest.mark.parametrize("precision", [[], ["--amp"], ["--fp16", "--fp16-init-scale", 4]])
def test_updates_wait_no_more_than_stock_fairseqs(joined, files, tmp_path, precision):
    """Of three subnets, against one model's."""
    ours = training(joined, tmp_path, "--mos-routing", "neuron", *precision, space=files / "space.yaml")
    found, theirs = waits_of_update(ours), waits_of_update(stock(joined, tmp_path, *precision))
    mine = [wait.line for wait in found if wait.is_in("mos_fairseq")]
    *asked, logged = mine
    assert len(asked) == 2 and all("padding.py" in line for line in asked), mine
    assert "subnet_metrics.py" in logged  # as fairseq, which reads its own one by one
    in_forwards = [wait for wait in theirs if "fairseq/models/" in wait.line]
    questions = [wait for wait in in_forwards if "scalar" in wait.what]
    assert len(questions) == 2 * 3  # of two encoder layers, and of the decoder
    assert len(found) < len(theirs) and len(found) - len(mine) == len(theirs) - len(in_forwards)


@pytest.fixture
def run_here(monkeypatch, log_level):
    """One of our commands in this process."""

    def run(command: str, *args: object, cuda: bool) -> None:
        monkeypatch.setattr(sys, "argv", [command, *map(str, args)])
        with pretend_cuda() if cuda else nullcontext():
            importlib.import_module(f"mos_fairseq.cli.{command.removeprefix('mos-')}").main()

    return run


def resumed(args: list[object], updates: int = 1):
    """Return a trainer in this process that resumes from ``args`` and has made ``count`` more updates."""
    trainer = trainer_of(args)
    checkpoint_utils.load_checkpoint(trainer.cfg.checkpoint, trainer)
    batches = iter(trainer.get_train_iterator(1, load_dataset=False).next_epoch_itr(shuffle=False))
    with metrics.aggregate(new_root=True):
        for _ in range(updates):
            assert math.isfinite(trainer.train_step([next(batches)])["loss"])
    return trainer


@pytest.fixture(scope="module")
def trained(commands, joined, files, tmp_path_factory):
    """(checkpoint, log) of a supernet trained on the device with all that asks it for something."""
    save_dir = tmp_path_factory.mktemp("on_cuda")
    bleu = ["--eval-bleu", "--eval-bleu-args", '{"beam": 2, "max_len_b": 3}', "--report-accuracy"]
    taught = ["--distillation", "alpha", "--distillation-weight", 0.5, "--hidden-weight", 0.1, "--label-smoothing", 0.1]
    subnets = ["--valid-subnets", "smallest,largest", "--best-checkpoint-metric", "bleu_smallest"]
    more = [*bleu, *taught, *subnets, "--optimizer", "adam_fused", "--update-freq", 2, "--store-ema"]
    args = training(joined, save_dir, *more, space=files / "space.yaml", criterion="distillation_mos")
    done = commands.fork("train", *args, "--max-update", 2, "--maximize-best-checkpoint-metric", cuda=True)
    return save_dir / "checkpoint_last.pt", done


def test_training_and_validation(commands, trained, joined, files):
    checkpoint, done = trained
    (row,) = done.rows("valid")
    assert {"valid_bleu_smallest", "valid_accuracy_largest", "valid_loss_smallest"} <= set(row)
    assert "gb_free" in done.out  # fairseq took it for a GPU
    state = torch.load(checkpoint, weights_only=False)
    assert {tensor.device.type for tensor in state["model"].values()} == {"cpu"}
    # the run goes on, on either device
    taught = ["--distillation", "alpha", "--optimizer", "adam_fused", "--restore-file", checkpoint]
    kind = {"criterion": "distillation_mos", "space": files / "space.yaml"}
    args = training(joined, checkpoint.parent / "more", *taught, **kind)
    assert resumed(args).get_num_updates() == 3
    with pretend_cuda():
        trainer = resumed(args)
        assert trainer.get_num_updates() == 3
        moments = trainer.optimizer.optimizer.state[next(trainer.model.parameters())]
        assert moments["exp_avg"].is_cuda and moments["exp_avg_sq"].is_cuda


def test_translations_are_those_of_the_cpu(commands, supernet, joined):
    args = generation(joined, supernet[0] / "checkpoint_last.pt", "--subnet", "random:3", "--max-len-b", 5)
    here, there = (commands.fork("generate", *args, cuda=cuda).found("H") for cuda in (False, True))
    assert here and same_translations(here, there)


def test_judging_subnets_waits_once(supernet, joined):
    """Of a mini-batch the host asks once whether it is padded; of subnets it reads all losses at once."""
    checkpoint, found = str(supernet[0] / "checkpoint_last.pt"), []
    for device in ("cpu", "cuda"):
        with pretend_cuda() if device == "cuda" else nullcontext([]) as waits:
            evaluator = SubnetEvaluator(checkpoint, str(joined), EvaluationOptions(max_tokens=40), device)
            subnets = [evaluator.space.largest(), evaluator.space.smallest(), evaluator.space.sample_subnet("judged")]
            found.append([evaluator.evaluate(subnet) for subnet in subnets[:1]])
            asked = [wait for wait in waits if "padding.py" in wait.line]
            waits.clear()
            found[-1] += [evaluator.evaluate(subnet) for subnet in subnets[1:]]
            apart, together = list(waits), evaluator.at_once
            waits.clear()
            assert list(evaluator.evaluate_all(subnets)) == found[-1]
    assert len(asked) == len(evaluator.batches) > 2
    tables = [wait for wait in apart if "positional_embedding.py" in wait.line]
    assert len(apart) - len(tables) == 2 and len(tables) <= 2, apart
    assert len(waits) == 1 < together, waits  # for all three
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_search_export_and_fine_tuning(run_here, supernet, joined, tmp_path):
    checkpoint, found = supernet[0] / "checkpoint_last.pt", []
    small = ["--population-size", 3, "--parents", 2, "--mutations", 1, "--crossovers", 0, "--iterations", 1]
    for cuda in (False, True):
        folder = tmp_path / f"search-{cuda}"
        args = [joined, "--path", checkpoint, "--constraint", "flops<=90%", *small, "--output", folder]
        run_here("mos-search", *args, cuda=cuda)
        found.append(json.loads((folder / "search.json").read_text()))
    assert found[0]["best"]["architecture"] == found[1]["best"]["architecture"]
    exported = tmp_path / "exported.pt"
    run_here("mos-export", "--path", checkpoint, "--subnet", folder / "best.yaml", "--output", exported, cuda=False)
    options = ["--subnet", folder / "best.yaml", "--finetune-from-model", exported]
    args = training(
        joined,
        tmp_path / "tuned",
        *options,
        task="translation",
        arch="transformer_subnet",
        criterion="label_smoothed_cross_entropy",
    )
    with pretend_cuda():
        resumed(args)


@pytest.mark.slow
def test_latency_of_half_precision(run_here, files, tmp_path):
    path = tmp_path / "latency.jsonl"
    least = ["--src-len", 5, "--tgt-len", 2, "--repeats", 1, "--beam", 2, "--warmup", 0, "--iterations", 5]
    args = ["measure", "--search-space", files / "space.yaml", "--vocab-size", 30, "--num-subnets", 2, *least]
    run_here("mos-latency", *args, "--device", "cuda", "--dtype", "float16", "--output", path, cuda=True)
    header, *rows = map(json.loads, path.read_text().splitlines())
    assert header["options"]["device"] == "cuda" and len(rows) == 2
    assert header["machine"]["processor"] == "pretended GPU"
    assert EVEN_SPACE["qkv_dim"] == header["search_space"]["qkv_dim"]
