"""The learning rate of a subnet that trains on from its supernet's weights."""

from __future__ import annotations

import pytest

from mos_fairseq.standalone.finetuning import default_learning_rate


def state_of(*rates: float, last: float) -> dict:
    return {"last_optimizer_state": {"param_groups": [{"lr": last}]}, "cfg": {"optimization": {"lr": list(rates)}}}


@pytest.mark.parametrize(
    ("rates", "last", "expected"),
    [
        ([2e-3], 6.6e-4, 6.6e-4),  # inverse_sqrt
        ([2e-3], 2e-4, 2e-4),
        ([3e-3], 0.0, 1e-3),  # polynomial_decay
        ([3e-3], 1e-7, 1e-3),  # cosine
        ([1e-3, 3e-3, 1e-4], 1e-4, 1e-3),  # one for each epoch
    ],
)
def test_it_is_the_last_updates_unless_the_schedule_ended(rates, last, expected):
    assert default_learning_rate(state_of(*rates, last=last)) == pytest.approx(expected)


def test_a_checkpoint_without_optimizer_has_none():
    assert default_learning_rate({"last_optimizer_state": None, "cfg": {"optimization": {"lr": [1.0]}}}) is None
