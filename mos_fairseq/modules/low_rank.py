"""Experts of low rank beside shared weights: W(a) = W + sum_e U_e diag(g_e(a)) D_e."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def drawn_aside(purpose: str) -> Iterator[None]:
    """Context for draws that leave torch's generator where it is: they follow from its state and ``purpose``.

    So a supernet with experts of low rank has the shared weights of plain weight sharing of the same seed.
    """
    with torch.random.fork_rng(devices=[]):
        seed = int(torch.randint(2**62, (), device="cpu")) ^ zlib.crc32(purpose.encode())
        torch.default_generator.manual_seed(seed)
        yield


def add_beside(y: Tensor, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The output of shared weights, y [..., G*o], and what experts of low rank add for the input x [..., i], by the
    factors of :meth:`LowRankExperts.factors`."""
    hidden = F.linear(x, right.flatten(0, 1)).unflatten(-1, right.shape[:2])
    return y + torch.einsum("...gk,gok->...go", hidden, left).flatten(-2)


class LowRankExperts(nn.Module):
    """E experts U_e D_e of rank R, added to the shared weights of an elastic linear (after LoRA, arXiv 2106.09685, and
    TAS-LoRA, arXiv 2605.07256, which has experts of low rank in a frozen supernet; nothing is divided by R here).

    Shapes: ``up`` U [E, G, O, R], ``down`` D [E, G, R, I], with G groups of rows that have factors of their own
    (query, key and value). A slice of the rows of U and of the columns of D is that of their product.

    U starts as zeros, so that a fresh supernet is one of plain weight sharing. D_e is drawn for each expert, uniformly
    within 1/sqrt(I), as :class:`torch.nn.Linear` is: with both at zero neither would get a gradient. In the first
    update only U gets one that is not zero, from then on D and the routers too. Experts part from the first update on,
    since each has directions of its own. Biases are shared.

    Args:
        in_features, out_features, groups, num_experts: I, O, G and E >= 1.
        rank: R >= 1.
    """

    def __init__(self, in_features: int, out_features: int, groups: int, num_experts: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.up = nn.Parameter(torch.zeros(num_experts, groups, out_features, rank))
        self.down = nn.Parameter(torch.empty(num_experts, groups, rank, in_features))
        with drawn_aside("experts"):
            nn.init.uniform_(self.down, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features))

    @property
    def is_zero(self) -> bool:
        """Whether it adds nothing, as at the start."""
        return not self.up.any()

    def factors(self, shares: Tensor | None, out_size: int, in_size: int) -> tuple[Tensor, Tensor]:
        """The two factors of what is added to the active slice: [G, o, E*R] and [G, E*R, i].

        Args:
            shares: of the experts: [E] (layer-wise), [E, R] (of each component) or [E, G, o] (of each row); None adds
                all of them.
        """
        up = self.up[:, :, :out_size]
        if shares is not None:
            shares = shares.to(up.dtype)
            shape = {1: (-1, 1, 1, 1), 2: (len(shares), 1, 1, -1), 3: (*shares.shape, 1)}[shares.dim()]
            up = up * shares.view(shape)
        left = up.permute(1, 2, 0, 3).flatten(2)
        return left, self.down[..., :in_size].transpose(0, 1).flatten(1, 2)

    @torch.no_grad()
    def products(self) -> Tensor:
        """U_e D_e of each expert, [E, G, O, I]."""
        return self.up @ self.down

    def is_cheaper_beside(self, out_size: int, in_size: int) -> bool:
        """Whether it is less work to add :func:`add_beside` to the outputs of frozen weights than to merge.

        Merging then costs the gradient of the whole merged matrix, 2*T*o*i FLOPs for T tokens, which only the factors
        need; beside, outputs and gradients take 6*T*(o+i)*E*R.
        """
        experts, _, _, rank = self.up.shape
        return 3 * (out_size + in_size) * experts * rank < out_size * in_size

    def extra_repr(self) -> str:
        return f"rank={self.rank}, num_experts={len(self.up)}"
