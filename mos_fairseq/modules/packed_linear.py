"""Products of inference on a CPU, with weights kept in a layout that is faster: oneDNN's blocked one, or transposed.

Laying weights out for oneDNN takes about as long as multiplying 200 rows, and pays from the second product on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mos_fairseq.modules import kernels, onednn
from mos_fairseq.modules.derived import Derived, KeepsDerived

# oneDNN multiplies four rows 10 to 35 % faster than one or two (EPYC Zen 4) where the weights do not fit the cache
_FULL = 4


class PackedWeight(Derived):
    """Keeps one weight matrix packed. Costs a second copy of the weights, in inference only."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., i], weight [o, i' >= i] of which the first i columns count, bias [o] -> [..., o]."""
        width = x.size(-1)
        if torch.is_grad_enabled():
            self.clear()  # an update may follow
            active = weight if width == weight.size(1) else weight[:, :width]
            return (onednn.linear if onednn.suits_training(x, active) else F.linear)(x, active, bias)
        if not _suits(x, weight) or not self._knows(weight, width):  # seen for the first time: it may be the last
            return F.linear(x, weight[:, :width], bias)
        if self._made is None:
            self._made = onednn.pack(weight[:, :width])
        rows = x.numel() // width
        if rows <= 2 and weight.size(0) * width >= kernels.policy().filled_weight:
            filled = F.pad(x.reshape(rows, width), (0, 0, 0, _FULL - rows))
            return onednn.multiply(filled, self._made, bias)[:rows].view(*x.shape[:-1], -1)
        return onednn.multiply(x, self._made, bias)


class TransposedWeight(Derived):
    """Keeps one weight matrix transposed, in inference: 3 times faster to multiply with a single vector on a CPU."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x [i], weight and bias of any shapes [..., i] and [...] -> [o], o being the product of all ``...``."""
        if not self._knows(weight, x.size(-1)) or self._made is None:
            self._made = weight.detach().flatten(0, -2).t().contiguous()
        return F.linear(x, self._made.t(), bias.flatten())


def _suits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN can multiply these, and is the faster one. Of the weight, the columns that x has count."""
    policy = kernels.policy()
    large = weight.size(0) * x.size(-1) >= policy.large_weight
    fewest = policy.packed_rows if large else policy.packed_rows_of_small
    return x.numel() // max(1, x.size(-1)) >= fewest and onednn.suits(x, weight)


class Linear(KeepsDerived, nn.Linear):
    """:class:`torch.nn.Linear` that packs its weights in inference on a CPU."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self._packed = PackedWeight()

    def forward(self, x: Tensor) -> Tensor:
        """x [..., i] -> [..., o]."""
        return self._packed.linear(x, self.weight, self.bias)
