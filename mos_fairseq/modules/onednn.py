"""Matrix products by oneDNN on a CPU in fp32, where torch would use MKL.

On AMD's processors with AVX-512 MKL takes up to 3 times as long for the few rows of a beam, and on Zen 5 twice as long
for a training batch (it does not use AVX-512 there; on Zen 4 up to 15 % longer). :mod:`mos_fairseq.modules.kernels`
says which products oneDNN gets on which processor.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from mos_fairseq.modules import kernels


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
    """Whether oneDNN can, and may, multiply these."""
    return (
        kernels.policy().enabled
        and x.dtype is torch.float32 is weight.dtype
        and x.is_cpu
        and weight.is_cpu
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and has_onednn()
    )


def suits_training(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`linear` can multiply these, and is the faster one."""
    policy = kernels.policy()
    if x.numel() * weight.size(0) < policy.training_multiplications:
        return False
    return (weight.is_contiguous() or weight.numel() <= policy.training_copied_weight) and suits(x, weight)


def pack(weight: Tensor) -> Tensor:
    """weight [o, i] in oneDNN's blocked layout, for :func:`multiply`."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), kernels.policy().layout_rows)


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
    step = kernels.policy().gradient_rows
    for begin in range(0, len(found), step):
        some = slice(begin, begin + step)
        found[some] = multiply(rows[:, some].t().contiguous(), columns, None)
    return found


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., i], weight [o, i], bias [o] -> [..., o], with gradients. See :func:`suits_training`."""
    return _Linear.apply(x.contiguous(), weight.contiguous(), bias)
