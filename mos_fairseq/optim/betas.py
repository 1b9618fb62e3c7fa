"""Two rates of moving averages, as fairseq's command line and Hydra give them."""

import ast
from typing import Any

from omegaconf import OmegaConf

from mos_fairseq.errors import InputError


def read_betas(**option: Any) -> tuple[float, float]:
    """The two numbers of an option, by its name.

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
