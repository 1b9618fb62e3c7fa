"""Eden against its formula."""

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.optim.lr_scheduler import EdenSchedule, EdenScheduleConfig
from tests.optim.test_exponential_constant import Optimizer


def schedule(**options) -> tuple[EdenSchedule, list[float]]:
    """The schedule, and the rates that it sets."""
    defaults = {"lr": [0.03], "eden_updates": 10.0, "eden_epochs": 2.0, "warmup_updates": 4, "eden_warmup_start": 0.5}
    optimizer = Optimizer()
    return EdenSchedule(EdenScheduleConfig(**defaults | options), optimizer), optimizer.rates


def test_formula():
    scheduler, rates = schedule()
    assert rates == [0.015]  # before the first update
    for t in range(60):
        if t % 7 == 0:
            scheduler.step_begin_epoch(t // 7 + 1)
        e = t // 7
        expected = 0.03 * ((t**2 + 100) / 100) ** -0.25 * ((e**2 + 4) / 4) ** -0.25 * min(1, 0.5 + t / 8)
        assert scheduler.step_update(t) == rates[-1] == pytest.approx(expected, rel=1e-12)


def test_resumed_run_goes_on_with_the_same_rate():
    first, second = schedule()[0], schedule()[0]
    first.step_begin_epoch(3)
    second.load_state_dict(first.state_dict())
    second.step_begin_epoch(3)  # fairseq's at every start
    assert second.step_update(9) == first.step_update(9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": [0.1, 0.2]}, r"lr is \[0.1, 0.2\].*one number"),
        ({"warmup_updates": -1}, "warmup_updates is -1"),
        ({"eden_updates": 0.0}, "eden_updates is 0.0"),
        ({"eden_epochs": float("inf")}, "eden_epochs is inf"),
        ({"eden_warmup_start": 1.5}, "eden_warmup_start is 1.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        schedule(**options)
