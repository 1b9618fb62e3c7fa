"""What is made of weights and kept for the next forwards without gradients: packed, transposed or merged weights.

It is used as long as the weights are the same tensors with the same version counters. Two kinds of writers raise no
counter: fairseq's optimizers, which write through ``p.data``, and torch's fused kernels. Therefore it is forgotten in
a forward with autograd and when a gradient comes, too: an update may follow. A write through ``p.data`` with neither in
between is not seen until the mode is set.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn


def state_of(weight: Tensor) -> tuple[int, int]:
    """Changes when the weight is written to in the ordinary way. (Tensors of inference mode count no versions.)"""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


class Derived:
    """Something made of a weight, kept for as long as that stays the same tensor with the same values.

    Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget it."""
        self._weight: Tensor | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._made: Tensor | None = None

    @property
    def is_kept(self) -> bool:
        """Whether there is something."""
        return self._weight is not None

    def __reduce__(self):
        return type(self), ()

    def _knows(self, weight: Tensor, width: int) -> bool:
        """Whether ``weight``, of which ``width`` columns count, is the one of the last call; if not, forget."""
        stamp = (width, *state_of(weight))
        known = weight is self._weight and stamp == self._stamp
        if not known:
            self._weight, self._stamp, self._made = weight, stamp, None
        return known


class KeepsDerived(nn.Module):
    """To be inherited first: forgets what it and its parts derived from weights when mode, device or type changes."""

    @functools.cached_property
    def _derived(self) -> list[Derived]:
        return [value for module in self.modules() for value in vars(module).values() if isinstance(value, Derived)]

    def forget(self) -> None:
        """Forget what was made of the weights."""
        for derived in self._derived:
            derived.clear()

    def keeps_any(self) -> bool:
        """Whether there is anything to forget."""
        return any(derived.is_kept for derived in self._derived)

    def forget_when_trained(self, output: Tensor) -> None:
        """To be called with a forward's output: forget when its gradient comes, since an update may follow."""
        if output.requires_grad and not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
            output.register_hook(self._gradient_came)

    def _gradient_came(self, gradient: Tensor) -> None:
        if self.keeps_any():
            self.forget()

    def train(self, mode: bool = True):
        self.forget()
        return super().train(mode)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self.forget()  # tensors of inference mode do not tell that they were written to
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn, recurse: bool = True):
        self.forget()  # weights that go to another device and back may lie where they lay
        return super()._apply(fn, recurse)
