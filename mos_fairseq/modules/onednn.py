"""Matrix products by oneDNN on a CPU in fp32, where torch would use MKL.

On AMD's processors MKL takes up to 3 times as long for the few rows of a beam, and on Zen 5 twice as long for a
training batch (it does not use AVX-512 there; on Zen 4 up to 15 % longer). On an Intel machine oneDNN pays for large
weights and more than two rows; a batch was not looked at there.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from mos_fairseq import processor

_TYPICAL_ROWS = 5  # a packed layout is chosen for a number of rows, and serves any
# oneDNN prepares for each new number of rows, 1.5 ms a product (Zen 5: 0.2 to 0.5, and it gains twice as much):
# multiplications from which on the gain is more
_MULTIPLICATIONS = 1 << (27 if processor.is_zen5() else 30)
_LARGE = 1 << 22  # slices of more elements, as of an output projection, are not worth the copy that oneDNN needs
_ROWS = 4096  # of a weight's gradient at a time: the output's gradient is transposed for it, and takes memory


IS_INTEL = processor.is_intel()  # there MKL is the faster one for few rows or small weights


@functools.cache
def has_onednn() -> bool:
    """Whether this torch can do it: these operators are what torch.compile uses for frozen weights."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.inference_mode():
            multiply(torch.ones(2, 3), pack(torch.ones(4, 3)), None)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN can multiply these."""
    return (
        x.dtype is torch.float32 is weight.dtype
        and x.is_cpu
        and weight.is_cpu
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and has_onednn()
    )


def suits_training(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`linear` can multiply these, and is the faster one."""
    multiplications = x.numel() * weight.size(0)
    copied = not weight.is_contiguous()
    return multiplications >= _MULTIPLICATIONS and not (copied and weight.numel() > _LARGE) and suits(x, weight)


def pack(weight: Tensor) -> Tensor:
    """weight [o, i] in oneDNN's blocked layout, for :func:`multiply`."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _TYPICAL_ROWS)


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., i], weight [o, i] (packed, or dense in either order), bias [o] -> [..., o]; no gradients.

    With gaps between rows it would take minutes.
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """torch's linear, with oneDNN for the output and the gradients of input and weight."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return multiply(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = grad_weight = grad_bias = None
        twice = torch.is_grad_enabled()  # the backward pass will be differentiated too
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight if twice else multiply(grad, weight.t(), None)
        rows = grad.reshape(-1, grad.size(-1))
        if ctx.needs_input_grad[1]:
            columns = x.reshape(-1, x.size(-1)).t()
            grad_weight = rows.t() @ columns.t() if twice else _outer(rows, columns)
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x, grad_weight, grad_bias


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    """rows [n, o], columns [i, n] -> [o, i], their products summed over n."""
    found = rows.new_empty(rows.size(1), columns.size(0))
    for begin in range(0, len(found), _ROWS):
        some = slice(begin, begin + _ROWS)
        found[some] = multiply(rows[:, some].t().contiguous(), columns, None)
    return found


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., i], weight [o, i], bias [o] -> [..., o], with gradients. See :func:`suits_training`."""
    return _Linear.apply(x.contiguous(), weight.contiguous(), bias)
