"""Training in half precision: on the CPU, whose fp16 and bf16 are real, and by autocast on a simulated GPU."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from fairseq import checkpoint_utils, utils
from fairseq.logging import metrics

from mos_fairseq.errors import InputError
from tests.cli.conftest import trainer_of, training
from tests.pretend_cuda import pretend_cuda
from tests.seeds import moved

FP16 = ["--fp16", "--fp16-init-scale", 4]
PRECISIONS = {
    "fp16": FP16,
    "bf16": ["--bf16"],
    "memory-efficient fp16": [*FP16, "--memory-efficient-fp16"],
    "memory-efficient bf16": ["--bf16", "--memory-efficient-bf16"],
    "amp": ["--amp"],
}


def updates_of(trainer, count: int, each=lambda: None) -> list[dict]:
    """Return the logs of ``count`` updates; ``each`` is called before every one."""
    batches, logs = iter(trainer.get_train_iterator(1, load_dataset=False).next_epoch_itr(shuffle=False)), []
    with metrics.aggregate(new_root=True):
        for _ in range(count):
            each()
            logs.append(trainer.train_step([next(batches)]))
    return logs


@pytest.mark.parametrize("optimizer", ["adam", "adam_fused"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_absent_layers_do_not_move(joined, files, tmp_path, precision, optimizer):
    """Of two updates the first gives Adam a momentum for all layers, and the second trains the smallest subnet."""
    if "memory" in precision and optimizer == "adam_fused":
        return  # refused, see below
    options = [*PRECISIONS[precision], "--optimizer", optimizer, "--subnet-sampling", "largest", "--clip-norm", 0]
    trainer = trainer_of(training(joined, tmp_path, *options, space=files / "space.yaml"), tpu=False)
    task = trainer.task
    updates_of(trainer, 1)
    task._sampling.subnets = lambda update: [("smallest", task.search_space.smallest())]
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    updates_of(trainer, 1)
    moved = {name: not torch.equal(p, before[name]) for name, p in trainer.model.named_parameters()}
    absent = [name for name, p in trainer.model.named_parameters() if p.grad is None]
    assert absent and all(name.startswith("decoder.layers.1.") for name in absent)
    assert not any(moved[name] for name in absent)
    assert moved["decoder.layers.0.fc1.weight"] and moved["encoder.embed_tokens.weight"]


def test_the_trap_is_real(joined, files, tmp_path, monkeypatch):
    """fairseq itself gives absent layers zeros for gradients, and Adam moves them."""
    from fairseq.optim import FP16Optimizer

    original = FP16Optimizer._sync_fp16_grads_to_fp32._mos_fairseq_original
    monkeypatch.setattr(FP16Optimizer, "_sync_fp16_grads_to_fp32", original)
    with pytest.raises(AssertionError):
        test_absent_layers_do_not_move(joined, files, tmp_path, "bf16", "adam")


def losses_of(joined, files, precision: list[object]) -> list[float]:
    args = training(joined, files, *precision, "--mos-routing", "neuron", space=files / "space.yaml")
    torch.manual_seed(1)
    return [float(log["loss"]) for log in updates_of(trainer_of(args, tpu=False), 6)]


@pytest.fixture(scope="module")
def losses_in_fp32(joined, files) -> list[float]:
    return losses_of(joined, files, [])


@pytest.mark.parametrize("precision", ["fp16", "bf16", "memory-efficient bf16"])
def test_training_is_about_that_of_fp32(joined, files, losses_in_fp32, precision):
    """fp32 copies of the parameters are within the rounding of the gradients."""
    losses = losses_of(joined, files, PRECISIONS[precision])
    assert losses == pytest.approx(losses_in_fp32, rel=0.05)
    assert losses[-1] < 0.85 * losses[0]


def test_a_run_goes_on(commands, joined, files, tmp_path):
    """fairseq-train --bf16, which stock fairseq takes for a TPU option. A resumed run is one whose fp32 copies of the
    parameters are rounded where it was resumed: fairseq's checkpoints do not have them."""
    bleu = ["--eval-bleu", "--eval-bleu-args", '{"beam": 2, "max_len_b": 3}', "--valid-subnets", "smallest"]
    options = ["--bf16", "--mos-routing", "neuron", "--optimizer", "adam_fused", *bleu]
    args = training(joined, tmp_path, *options, space=files / "space.yaml")
    done = commands.fork("train", *args, "--max-update", 2)
    assert 0 <= float(done.rows("valid")[-1]["valid_bleu_smallest"]) <= 100  # translated in bf16
    assert "kept apart" in done.out + done.err
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=False)
    weight = state["model"]["encoder.embed_tokens.weight"]
    assert torch.equal(weight, weight.bfloat16().float())
    losses = []
    for updates in (4, 2):  # undisturbed, and the rest of the run
        utils.set_torch_seed(moved(1))  # as the command did
        trainer = trainer_of(args, tpu=False)
        if updates == 2:
            checkpoint_utils.load_checkpoint(trainer.cfg.checkpoint, trainer)
        batches = trainer.get_train_iterator(1).next_epoch_itr()  # shuffled as there
        with metrics.aggregate(new_root=True):
            logs = []
            for batch in islice(batches, trainer.get_num_updates(), 4):
                logs.append(trainer.train_step([batch]))
                for copy in trainer.optimizer.fp32_params if trainer.get_num_updates() == 2 else ():
                    copy.data = copy.data.bfloat16().float()
        assert trainer.get_num_updates() == 4
        losses.append([float(log["loss"]) for log in logs[-2:]])
    assert losses[1] == pytest.approx(losses[0], abs=0.002)  # logged with three digits


def test_what_cannot_be_is_refused(joined, files, tmp_path):
    args = training(joined, tmp_path, *FP16, space=files / "space.yaml")
    whole = trainer_of([*args, "--memory-efficient-fp16", "--optimizer", "adam_fused"])
    with pytest.raises(InputError, match="adam_fused with --memory-efficient-fp16"):
        _ = whole.optimizer
    optimizer = trainer_of(args).optimizer
    flat = optimizer.state_dict() | {"param_groups": [{"params": [0]}]}
    with pytest.raises(InputError, match="all parameters in one tensor.*--reset-optimizer"):
        optimizer.load_state_dict(flat)
    optimizer.load_state_dict(optimizer.state_dict())


def test_fp16_of_other_models_is_as_it_was(joined, tmp_path):
    with pretend_cuda():
        smoothed = {"task": "translation", "arch": "transformer_tiny", "criterion": "label_smoothed_cross_entropy"}
        trainer = trainer_of(training(joined, tmp_path, *FP16, **smoothed))
        assert trainer.optimizer.has_flat_params
        updates_of(trainer, 2)
