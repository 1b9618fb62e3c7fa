"""Matrix products of inference on a CPU, with weights kept in oneDNN's blocked layout.

torch multiplies fp32 matrices with MKL, which is slow for the few rows of a beam (3 times slower at 5 rows on the AMD
machine of README's figures, a fifth slower at 1,000). oneDNN, which torch brings as well, is faster once the weights
are laid out for it; that takes about as long as multiplying 200 rows, and pays from the second product on.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALL = 1 << 20  # below that many elements, MKL is as fast for a single row
_TYPICAL_ROWS = 5  # the layout is chosen for a number of rows, and serves any


@functools.cache
def _has_onednn() -> bool:
    """Whether this torch can do it: these operators are what torch.compile uses for frozen weights."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.inference_mode():
            _multiply(torch.ones(2, 3), _pack(torch.ones(4, 3)), None)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _TYPICAL_ROWS)


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


class PackedWeight:
    """Keeps one weight matrix packed for as long as it stays the same tensor with the same values.

    Costs a second copy of the weights, in inference only. Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the packed weights."""
        self._stamp: tuple | None = None
        self._packed: Tensor | None = None

    def __reduce__(self):
        return PackedWeight, ()

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [..., i], weight [o, i], bias [o] -> [..., o], as :func:`torch.nn.functional.linear`."""
        rows = x.numel() // x.size(-1) if x.numel() else 0
        if (
            torch.is_grad_enabled()
            or rows < 2 and (not rows or weight.numel() < _SMALL)
            or not (x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu")
            or torch.is_autocast_enabled("cpu")
            or torch.jit.is_tracing()
            or torch.compiler.is_compiling()
            or not _has_onednn()
        ):
            return F.linear(x, weight, bias)
        # tensors made in inference mode count no versions, nor are they written to here
        stamp = (weight.data_ptr(), weight.shape, weight.stride(), 0 if weight.is_inference() else weight._version)
        if stamp != self._stamp:  # seen for the first time: it may be the last
            self._stamp, self._packed = stamp, None
            return F.linear(x, weight, bias)
        if self._packed is None:
            self._packed = _pack(weight.detach())
        return _multiply(x, self._packed, bias)


class Linear(nn.Linear):
    """:class:`torch.nn.Linear` that packs its weights in inference on a CPU."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self._packed = PackedWeight()

    def train(self, mode: bool = True):
        self._packed.clear()
        return super().train(mode)

    def _apply(self, fn, recurse: bool = True):
        self._packed.clear()  # weights that go to another device and back may lie where they lay
        return super()._apply(fn, recurse)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., i] -> [..., o]."""
        return self._packed.linear(x, self.weight, self.bias)
