"""Activation functions by fairseq's names."""

from __future__ import annotations

from collections.abc import Callable

from fairseq import utils
from torch import Tensor, nn


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """fairseq's function; x of any shape -> the same shape.

    ``gelu`` is torch's. fairseq's converts half precision to fp32 and back, which torch does within the function. For
    contiguous tensors the result is the same but for denormal numbers, and on a CPU the forward pass takes a fifth of
    the time. Double precision stays double, where fairseq's rounds to fp32.
    """
    if name == "gelu":
        return nn.functional.gelu
    function = utils.get_activation_fn(name)
    return function() if isinstance(function, type) else function  # for "swish" fairseq gives a class
