"""Checks of ranges that all options share."""

import math

import pytest

from mos_fairseq.errors import InputError, at_least, below_one


@pytest.mark.parametrize(
    ("low", "value", "message"),
    [
        (1, 0, "^steps is 0: allowed are whole numbers from 1 up$"),
        (5, 4, "^steps is 4: allowed are whole numbers from 5 up$"),
        (0.0, -0.5, "^steps is -0.5: allowed are numbers from 0 up$"),
        (0.5, 0.25, "^steps is 0.25: allowed are numbers from 0.5 up$"),
        (0.0, math.nan, "^steps is nan: "),
        (0.0, math.inf, "^steps is inf: "),
    ],
)
def test_what_is_too_small_is_named(low, value, message):
    at_least(low, other=low, steps=low)
    with pytest.raises(InputError, match=message):
        at_least(low, other=low, steps=value)


def test_what_is_not_given_is_not_checked():
    at_least(1, steps=None)


@pytest.mark.parametrize("value", [-0.1, 1, math.nan])
def test_rates(value):
    below_one(dropout=0, other=0.999)
    with pytest.raises(InputError, match=f"^dropout is {value}: allowed are numbers from 0 to below 1$"):
        below_one(other=0.5, dropout=value)
