"""fairseq's dropout module with a faster generator of masks on CPUs."""

from __future__ import annotations

import numpy as np
import torch
from fairseq.modules import FairseqDropout
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable

from mos_fairseq.modules import kernels

_STEPS = 1 << 16
_HIGHEST = 0.99  # above it, rounding the rate would change what is kept, on average, by more than 1/1000


def _draws(count: int) -> Tensor:
    """``count`` uniform 16-bit integers.

    Torch's generator seeds numpy's SFC64, which takes half of its time for large tensors; one 64-bit draw makes four
    16-bit ones. fairseq seeds all processes alike, so the rank is part of the seed.
    """
    seed = int(torch.randint(2**62, ()))
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    bits = np.random.SFC64((seed, count, rank)).random_raw((count + 3) // 4)
    return torch.from_numpy(bits.view(np.int16))[:count]


class _MaskedScale(torch.autograd.Function):
    """x * mask, where mask is 0 or 1 / (1 - p); keeps the mask alone for the backward pass."""

    @staticmethod
    def forward(ctx, x: Tensor, p: float) -> Tensor:
        draws = _draws(x.numel()).view(x.shape)
        # Comparing straight into floating-point numbers takes less than half of the time of converting booleans
        mask = torch.ge(draws, round(p * _STEPS) - _STEPS // 2, out=torch.empty(x.shape, dtype=x.dtype))
        mask.mul_(1 / (1 - p))
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (mask,) = ctx.saved_tensors
        return grad * mask, None


class Dropout(FairseqDropout):
    """Dropout that fairseq can keep on at inference (``--retain-dropout``).

    On a CPU a rate up to 0.99 is rounded to a multiple of 1/65536.
    """

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        """x of any shape -> the same shape."""
        active = 0 < self.p <= _HIGHEST and (self.training or self.apply_during_inference)
        if active and x.is_cpu and kernels.policy().enabled and not torch.compiler.is_compiling():
            return _MaskedScale.apply(x, self.p)
        return super().forward(x, inplace)
