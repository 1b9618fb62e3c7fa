"""Values of options that optimizers and schedules share, as fairseq's command line and Hydra give them."""

import ast
from collections.abc import Iterable
from typing import Any

from omegaconf import OmegaConf

from mos_fairseq.errors import InputError


def read_betas(**option: Any) -> tuple[float, float]:
    """Return the two numbers of an option, given by its name: rates of moving averages.

    Raises:
        InputError: they are not two numbers in [0, 1).
    """
    ((name, value),) = option.items()
    try:
        betas: Any = ast.literal_eval(value) if isinstance(value, str) else value
        betas = OmegaConf.to_container(betas) if OmegaConf.is_config(betas) else betas
        first, second = (float(beta) for beta in betas)
    except (SyntaxError, TypeError, ValueError):
        raise InputError(f"{name} is {value}: allowed are two numbers, as in '(0.9, 0.98)'") from None
    if not (0 <= first < 1 and 0 <= second < 1):
        raise InputError(f"{name} is {value}: allowed are numbers from 0 to below 1")
    return first, second


def only_rate(lr: Iterable[float], scheduler: str) -> float:
    """Return the learning rate of ``scheduler``, which takes one.

    Raises:
        InputError: there are several, as fairseq allows one for each epoch.
    """
    rates = list(lr)
    if len(rates) != 1:
        raise InputError(f"lr is {rates}: lr_scheduler {scheduler} takes one number")
    return rates[0]
