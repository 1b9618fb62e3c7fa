"""Supernets on a GPU: equal to the CPU, trained in half precision, exported, timed."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from fairseq import utils
from fairseq.logging import metrics

from mos_fairseq.criterions import LabelSmoothedCrossEntropyMosCriterion
from mos_fairseq.tasks import TranslationMosConfig, TranslationMosTask
from tests.cli.conftest import generation, same_translations, trainer_of, training
from tests.helpers import batch, dictionary, fake_task, sample_of, small_space, supernet

ROUTINGS = ["none", "layer", "neuron"]
OPTIMIZER = SimpleNamespace(backward=lambda loss: loss.backward())
SAMPLES = [sample_of(*batch(seed=3)), sample_of(*batch(lengths=((3, 9), (5, 2)), seed=4))]
PRECISIONS = {"fp16": ["--fp16", "--fp16-init-scale", 4], "bf16": ["--bf16"], "amp": ["--amp"]}


def make_task() -> TranslationMosTask:
    best = {"best_checkpoint_metric": "loss", "maximize_best_checkpoint_metric": False, "valid_subset": "valid"}
    usual = {"search_space": small_space().dumps(), "seed": 1, "log_interval": 100, "subnet_sampling": "sandwich"}
    cfg = TranslationMosConfig(**usual, **best)
    return TranslationMosTask(cfg, dictionary(), dictionary())


def model_of(routing: str):
    return supernet(mos_routing=routing, mos_linears="all", router_dropout=0.0, dropout=0.0)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_fp32_is_that_of_the_cpu(routing):
    """Gradients of an update of the sandwich, and logits of a subnet and of its twin."""
    task, criterion = make_task(), LabelSmoothedCrossEntropyMosCriterion(fake_task(), False, 0.1)
    here, there = model_of(routing), model_of(routing).to("cuda")
    for model, samples in ((here, SAMPLES), (there, utils.move_to_cuda(SAMPLES))):
        for sample in samples:
            task.train_step(sample, model, criterion, OPTIMIZER, 3)
    for (name, mine), theirs in zip(there.named_parameters(), here.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad.cpu(), theirs.grad, rtol=1e-4, atol=1e-4, msg=name)
    inputs = [SAMPLES[0]["net_input"][name] for name in ("src_tokens", "src_lengths", "prev_output_tokens")]
    real = inputs[2].ne(1)
    for model in (here, there):
        model.eval().set_active_subnet(model.search_space.sample_subnet("gpu"))
    with torch.no_grad():
        expected = here(*inputs)[0][real]
        for model in (there, there.get_active_subnet()):
            found = model(*(x.to("cuda") for x in inputs))[0].cpu()[real]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("optimizer", ["adam", "adam_fused"])
def test_half_precision_lowers_the_loss(joined, files, tmp_path, precision, optimizer):  # noqa: F811
    options = [*PRECISIONS[precision], "--mos-routing", "neuron", "--optimizer", optimizer]
    trainer = trainer_of(training(joined, tmp_path, *options, space=files / "space.yaml"), tpu=False)
    batches = list(trainer.get_train_iterator(1, load_dataset=False).next_epoch_itr(shuffle=False))
    losses = []
    with metrics.aggregate(new_root=True):
        for step in range(10):
            log = trainer.train_step([batches[step % 2]])
            if log is not None:  # an overflow
                losses.append(float(log["loss"]))
    assert next(trainer.model.parameters()).is_cuda
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize("routing", ROUTINGS)
def test_a_second_subnet_makes_nobody_wait(real, routing):
    """The driver itself reports: after a batch's first forward, an update of the sandwich never waits."""
    task, criterion = make_task(), LabelSmoothedCrossEntropyMosCriterion(fake_task(), False, 0.1)
    model, sample = model_of(routing).to("cuda"), utils.move_to_cuda(SAMPLES[0])
    for _ in range(2):
        task.train_step(sample, model, criterion, OPTIMIZER, 3)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        task.train_step(sample, model, criterion, OPTIMIZER, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_one_process_with_nccl(real, tmp_path):
    """Gradients that exist are their own mean, and others stay missing."""
    from torch import distributed

    distributed.init_process_group("nccl", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = model_of("neuron").to("cuda")
        wrapped = model.data_parallel(distributed.group.WORLD, bucket_mb=0.01)
        model.set_active_subnet(model.search_space.smallest())
        criterion = LabelSmoothedCrossEntropyMosCriterion(fake_task(), False, 0.1)
        criterion(wrapped, utils.move_to_cuda(SAMPLES[0]))[0].backward()
        before = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
        wrapped.all_reduce_grads()
        assert any(grad is None for grad in before.values())
        for name, parameter in model.named_parameters():
            same = parameter.grad is None if before[name] is None else torch.equal(parameter.grad, before[name])
            assert same, name
    finally:
        distributed.destroy_process_group()


def test_translations_are_those_of_the_cpu(commands, supernet, joined):  # noqa: F811
    checkpoint = supernet[0] / "checkpoint_last.pt"
    args = generation(joined, checkpoint, "--subnet", "random:3", "--beam", 3)
    here, there = (commands.fork("generate", *args, cuda=cuda).found("H") for cuda in (False, True))
    assert here and same_translations(here, there)


def test_export_of_a_model_on_the_gpu(commands, supernet, joined, tmp_path):  # noqa: F811
    checkpoint, exported = supernet[0] / "checkpoint_last.pt", tmp_path / "small.pt"
    commands.fork("mos-export", "--path", checkpoint, "--subnet", "smallest", "--output", exported, cuda=True)
    expected = commands.fork("generate", *generation(joined, checkpoint, "--subnet", "smallest")).found("H")
    args = generation(joined, exported, "--required-batch-size-multiple", 1, task="translation")
    found = commands.fork("generate", *args, cuda=True).found("H")
    assert same_translations(expected, found)


def test_latency(commands, files, tmp_path):  # noqa: F811
    path, lengths = tmp_path / "latency.jsonl", ["--src-len", 5, "--tgt-len", 4, "--repeats", 2, "--beam", 2]
    args = ["measure", "--search-space", files / "space.yaml", "--vocab-size", 30, "--num-subnets", 2, *lengths]
    commands.fork("mos-latency", *args, "--device", "cuda", "--dtype", "float16", "--output", path, cuda=True)
    header, *rows = map(json.loads, path.read_text().splitlines())
    assert header["machine"]["processor"] == torch.cuda.get_device_name(0)
    assert len(rows) == 4 and all(row["latency_ms"] > 0 for row in rows)
