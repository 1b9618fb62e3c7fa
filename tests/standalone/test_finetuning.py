"""The learning rate of a subnet that trains on from its supernet's weights."""

from __future__ import annotations

import pytest
import torch
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.optim.lr_scheduler import build_lr_scheduler
from omegaconf import OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.standalone.finetuning import check_rate, default_learning_rate, short_schedule

SCHEDULES = {
    "inverse_sqrt": {"warmup_updates": 4, "warmup_init_lr": -1},
    "polynomial_decay": {"warmup_updates": 4, "total_num_update": 50, "end_learning_rate": 0.0, "power": 1.0},
    "cosine": {
        "warmup_updates": 4,
        "warmup_init_lr": -1,
        "min_lr": 1e-7,
        "t_mult": 1.0,
        "lr_period_updates": 46,
        "lr_shrink": 1.0,
    },
}


def state_after(updates: int, name: str, *rates: float) -> dict:
    """A checkpoint as fairseq's trainer leaves it: the schedule has already set the rate of the next update."""
    optimizer = FairseqAdam(
        OmegaConf.structured(FairseqAdamConfig(lr=list(rates), tpu=False)), [torch.nn.Parameter(torch.ones(1))]
    )
    schedule = {"_name": name, "lr": list(rates)} | ({"max_update": 50} if name == "cosine" else {})
    scheduler = build_lr_scheduler(OmegaConf.create(schedule | SCHEDULES[name]), optimizer)
    scheduler.step_update(updates)
    cfg = {"optimization": {"lr": list(rates)}, "lr_scheduler": {"_name": name}}
    return {"last_optimizer_state": optimizer.state_dict(), "cfg": cfg}


def test_schedules_that_end_begin_again_at_a_third():
    for name in ("polynomial_decay", "cosine"):
        for updates in (20, 50):
            assert default_learning_rate(state_after(updates, name, 3e-3)) == pytest.approx(1e-3)


def test_others_go_on_at_the_last_rate():
    assert default_learning_rate(state_after(16, "inverse_sqrt", 2e-3)) == pytest.approx(1e-3)
    assert default_learning_rate(state_after(1, "inverse_sqrt", 2e-3)) == pytest.approx(5e-4)


def test_a_checkpoint_without_optimizer_has_none():
    assert default_learning_rate({"last_optimizer_state": None, "cfg": {}}) is None


def test_a_short_training_falls_to_0_in_its_own_updates():
    words = short_schedule(1e-3, 60, ["--seed", "3"])
    assert words == (
        "--lr 0.001 --lr-scheduler polynomial_decay --total-num-update 60 --warmup-updates 6 --end-learning-rate 0.0 "
        "--seed 3"
    ).split(" ")
    given = ["--lr-scheduler=inverse_sqrt", "--lr", "1e-4"]
    assert short_schedule(1e-3, 60, given) == short_schedule(1e-3, 120, given) == ["--lr", "0.001", *given]


def test_a_rate_is_needed():
    check_rate(1e-3, "x.pt")
    check_rate(None, "x.pt", ["--lr=0.1"])
    with pytest.raises(InputError, match=r"checkpoint x\.pt: its optimizer's state has no learning rate: give --lr"):
        check_rate(None, "x.pt", ["--lr-scheduler", "fixed"])
