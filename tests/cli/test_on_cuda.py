"""fairseq's commands and ours where torch sees a GPU (a pretended one): they end well, and as on the CPU."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.logging import metrics

from mos_fairseq.evaluation.evaluator import EvaluationOptions, SubnetEvaluator
from tests.cli.conftest import SPACE, generation, same_translations, trainer_of, training
from tests.pretend_cuda import Wait, pretend_cuda

STOCK_SIZES = {"encoder-layers": 2, "decoder-layers": 2, "encoder-embed-dim": 24, "decoder-embed-dim": 24}
STOCK_SIZES |= {"encoder-ffn-embed-dim": 32, "decoder-ffn-embed-dim": 32}


def waits_of_updates(args: list[object]) -> dict[int, list[Wait]]:
    """What the host waits for in updates of one and of two mini-batches, logging left out; the first update, which
    makes tables of positions, is not counted."""
    found = {}
    with pretend_cuda() as waits:
        trainer = trainer_of(args)
        batches = iter(trainer.get_train_iterator(1, load_dataset=False).next_epoch_itr(shuffle=False))
        with metrics.aggregate(new_root=True):
            for micro_batches in (1, 2, 1):
                waits.clear()
                trainer.train_step([next(batches) for _ in range(micro_batches)])
                found[micro_batches] = list(waits)
        assert trainer.get_num_updates() == 3
    return found


def stock(data, save_dir, *more: object) -> list[object]:
    sizes = [x for name, value in STOCK_SIZES.items() for x in (f"--{name}", value)]
    smoothed = {"task": "translation", "arch": "transformer", "criterion": "label_smoothed_cross_entropy"}
    return training(data, save_dir, *sizes, *more, **smoothed)


@pytest.mark.parametrize("precision", [[], ["--amp"], ["--fp16", "--fp16-init-scale", 4]])
def test_updates_wait_no_more_than_stock_fairseqs(joined, files, tmp_path, precision):
    """Of three subnets, against one model's."""
    ours = training(joined, tmp_path, "--mos-routing", "neuron", *precision, space=files / "space.yaml")
    theirs = waits_of_updates(stock(joined, tmp_path, *precision))
    for micro_batches, found in waits_of_updates(ours).items():
        mine = [wait.line for wait in found if wait.is_in("mos_fairseq")]
        *asked, logged = mine
        assert len(asked) == micro_batches and all("padding.py" in line for line in asked), mine
        assert "subnet_metrics.py" in logged  # as fairseq, which reads its own one by one
        in_forwards = [wait for wait in theirs[micro_batches] if "fairseq/models/" in wait.line]
        questions = [wait for wait in in_forwards if "scalar" in wait.what]
        assert len(questions) == 3 * micro_batches  # of two encoder layers, and of the decoder
        total = len(theirs[micro_batches])
        assert len(found) < total and len(found) - len(mine) == total - len(in_forwards)


def resumed(args: list[object], updates: int = 1):
    """The trainer in this process that goes on from what ``args`` name, and has made so many updates more."""
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


def test_judging_subnets_waits_once_for_each(supernet, joined):
    """Of a mini-batch the host asks once whether it is padded; of every subnet it reads all losses at once."""
    checkpoint, found = str(supernet[0] / "checkpoint_last.pt"), []
    options = EvaluationOptions(max_tokens=60)
    for device in ("cpu", "cuda"):
        with pretend_cuda() if device == "cuda" else nullcontext([]) as waits:
            evaluator = SubnetEvaluator(checkpoint, str(joined), options, device)
            space, batches = evaluator.space, len(evaluator.batches)
            assert batches > 2
            waits.clear()
            found.append([evaluator.evaluate(space.largest()), evaluator.evaluate(space.smallest())])
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    asked = ["padding.py" in wait.line for wait in waits]
    assert sum(asked) == batches and len(waits) == batches + 2, waits


def test_search_export_and_fine_tuning(commands, supernet, joined, tmp_path):
    checkpoint, found = supernet[0] / "checkpoint_last.pt", []
    small = ["--population-size", 3, "--parents", 2, "--mutations", 1, "--crossovers", 0, "--iterations", 1]
    for cuda in (False, True):
        folder = tmp_path / f"search-{cuda}"
        args = [joined, "--path", checkpoint, "--constraint", "flops<=90%", *small, "--output", folder]
        commands.fork("mos-search", *args, cuda=cuda)
        found.append(json.loads((folder / "search.json").read_text()))
    assert found[0]["best"]["architecture"] == found[1]["best"]["architecture"]
    exported = tmp_path / "exported.pt"
    commands.fork("mos-export", "--path", checkpoint, "--subnet", folder / "best.yaml", "--output", exported)
    options = ["--subnet", folder / "best.yaml", "--finetune-from-model", exported]
    args = training(joined, tmp_path / "tuned", *options, task="translation", arch="transformer_subnet",
                    criterion="label_smoothed_cross_entropy")
    with pretend_cuda():
        resumed(args)


def test_latency_of_half_precision(commands, files, tmp_path):
    path = tmp_path / "latency.jsonl"
    least = ["--src-len", 5, "--tgt-len", 2, "--repeats", 1, "--beam", 2, "--warmup", 0, "--iterations", 5]
    args = ["measure", "--search-space", files / "space.yaml", "--vocab-size", 30, "--num-subnets", 2, *least]
    commands.fork("mos-latency", *args, "--device", "cuda", "--dtype", "float16", "--output", path, cuda=True)
    header, *rows = map(json.loads, path.read_text().splitlines())
    assert header["options"]["device"] == "cuda" and len(rows) == 2
    assert header["machine"]["processor"] == "pretended GPU"
    assert SPACE["qkv_dim"] == header["search_space"]["qkv_dim"]
