"""What the host asks of a batch once for all subnets that read it: whether it has padding, and where it is masked.

On a GPU the host waits for the answer, and meanwhile launches nothing. Stock fairseq asks once for each encoder layer
and once in the decoder, in every forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from mos_fairseq.modules.derived import state_of


class _Memo:
    """Remembers an answer about each tensor for as long as the tensor lives.

    Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._known = WeakIdKeyDictionary()  # tensor -> (its state, the answer)

    def __reduce__(self):
        return type(self), ()

    def knows(self, tensor: Tensor) -> bool:
        """Whether it was told of this tensor, with the same values."""
        return tensor in self._known and self._known[tensor][0] == state_of(tensor)

    def learn(self, tensor: Tensor, answer: Any) -> None:
        """Remember the ``answer`` for ``tensor``."""
        self._known[tensor] = state_of(tensor), answer


class PaddingMemo(_Memo):
    """Remembers of tokens whether they are padded where it matters."""

    def any(self, tokens: Tensor, padding: Tensor) -> bool:
        """Whether ``padding``, a mask made of ``tokens``, is true anywhere; True where tensors have no values."""
        if tokens.is_meta:
            return True
        if tokens.is_cpu or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return bool(padding.any())
        if not self.knows(tokens):
            self.learn(tokens, bool(padding.any()))
        return self._known[tokens][1]


class MaskMemo(_Memo):
    """Remembers of masks where they are true."""

    def index(self, mask: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return an index of the positions where ``mask`` is true: on a GPU their coordinates, otherwise the mask."""
        if not mask.is_cuda or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return mask
        if not self.knows(mask):
            with torch.inference_mode(False):  # a forward with gradients may follow
                self.learn(mask, mask.nonzero(as_tuple=True))
        return self._known[mask][1]


def learn_together(asked: Sequence[tuple[PaddingMemo, Tensor, Tensor]]) -> None:
    """Answer several questions by one read.

    Args:
        asked: (memo, tokens, padding) as for :meth:`PaddingMemo.any`.
    """
    if all(memo.knows(tokens) for memo, tokens, _ in asked):
        return
    answers = torch.stack([padding.any() for _, _, padding in asked]).tolist()
    for (memo, tokens, _), answer in zip(asked, answers, strict=True):
        memo.learn(tokens, answer)
