"""BigNAS's learning rate against its formula."""

import math

import pytest
from fairseq.optim import FairseqOptimizer

from mos_fairseq.errors import InputError
from mos_fairseq.optim.lr_scheduler import ExponentialConstantSchedule, ExponentialConstantScheduleConfig


class Optimizer(FairseqOptimizer):
    """Keeps the rates that are set."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def set_lr(self, lr: float) -> None:
        self.rates.append(lr)


def schedule(**options) -> tuple[ExponentialConstantSchedule, list[float]]:
    """The schedule, and the rates that it sets."""
    defaults = {"lr": [0.5], "warmup_updates": 4, "warmup_init_lr": 0.1, "decay_updates": 10, "end_lr_ratio": 0.05}
    optimizer = Optimizer()
    cfg = ExponentialConstantScheduleConfig(**defaults | options)
    return ExponentialConstantSchedule(cfg, optimizer), optimizer.rates


def test_formula():
    scheduler, rates = schedule()
    assert rates == [0.1]  # before the first update
    for t in range(40):
        lr = scheduler.step_update(t)
        if t < 4:
            expected = 0.1 + 0.4 * t / 4
        elif t < 14:
            expected = 0.5 * math.exp(math.log(0.05) * (t - 4) / 10)
        else:
            expected = 0.5 * 0.05
        assert lr == rates[-1] == pytest.approx(expected, rel=1e-12)


def test_equal_factors_while_it_decays():
    scheduler, _ = schedule(warmup_updates=0)
    rates = [scheduler.step_update(t) for t in range(12)]
    assert rates[0] == 0.5 and rates[10] == rates[11] == pytest.approx(0.025)
    assert [b / a for a, b in zip(rates[:10], rates[1:11], strict=True)] == pytest.approx([0.05**0.1] * 10)


def test_resumed_run_goes_on_with_the_same_rate():
    first, second = schedule()[0], schedule()[0]
    for t in range(9):
        first.step_update(t)
    second.load_state_dict(first.state_dict())
    assert second.step_update(9) == first.step_update(9)


def test_epochs_do_not_change_it():
    scheduler, rates = schedule()
    scheduler.step_update(7)
    scheduler.step_begin_epoch(2)
    scheduler.step(2, val_loss=None)
    assert len(rates) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": [0.1, 0.2]}, r"lr is \[0.1, 0.2\].*one number"),
        ({"warmup_updates": -1}, "warmup_updates is -1"),
        ({"decay_updates": 0}, "decay_updates is 0.*from 1 up"),
        ({"end_lr_ratio": 0.0}, "end_lr_ratio is 0.0"),
        ({"end_lr_ratio": 1.5}, "end_lr_ratio is 1.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        schedule(**options)
