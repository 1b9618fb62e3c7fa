"""Linear layer whose input and output sizes, and whose experts, are chosen by the active subnet."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mos_fairseq.modules import kernels
from mos_fairseq.modules.elastic_layer_norm import check_size
from mos_fairseq.modules.low_rank import LowRankExperts, add_beside
from mos_fairseq.modules.mixture import add_low_rank, merged_again, mix_experts
from mos_fairseq.modules.packed_linear import PackedWeight


class ElasticLinear(nn.Module):
    """Largest-size weights of which the active subnet uses a prefix slice (HAT, arXiv 2005.14187), stacked E times
    for Mixture-of-Supernets (arXiv 2306.04845).

    Shapes: ``weight`` [E, G, O, I], ``bias`` [E, G, O]: E experts, G groups of rows that are sliced alike (3 for a
    fused query-key-value projection), O and I the largest output (per group) and input sizes. With a rank, E is 1 in
    both, which all subnets share, and the experts are in ``low_rank``.

    The weights in force are merged by :meth:`materialize` and used by :meth:`forward`; the owner (an elastic
    Transformer layer) decides when, because several linears may share one router.

    Args:
        in_features: largest input size I.
        out_features: largest output size O of each group.
        groups: G.
        num_experts: E >= 1.
        expert_rank: R of experts of low rank, which :class:`LowRankExperts` draws; 0: they are full matrices.
        gain: Xavier gain of an ordinary layer of this kind; None for the spread of :class:`torch.nn.Linear`, uniform
            within 1/sqrt(I), which fairseq's feed-forward layers have.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        groups: int = 1,
        num_experts: int = 1,
        expert_rank: int = 0,
        gain: float | None = 1.0,
    ) -> None:
        super().__init__()
        self.max_in_features, self.max_out_features = in_features, out_features
        self.active_in_features, self.active_out_features = in_features, out_features
        self.groups, self.num_experts = groups, num_experts
        full = 1 if expert_rank else num_experts
        self.weight = nn.Parameter(torch.empty(full, groups, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(full, groups, out_features)) if bias else None
        self._materialized: tuple[Tensor, Tensor | None] | None = None
        # what the merged weight is made of, and how to make it again in the backward pass; None keeps it
        self._merged_of: tuple[tuple[Tensor, ...], Callable[[], Tensor]] | None = None
        self._beside: tuple[Tensor, Tensor] | None = None  # factors that are not merged
        self._packed = PackedWeight()
        self.reset_parameters(gain)
        self.low_rank: LowRankExperts | None = None
        if expert_rank:
            self.low_rank = LowRankExperts(in_features, out_features, groups, num_experts, expert_rank)

    @torch.no_grad()
    def reset_parameters(self, gain: float | None, std: float | None = None) -> None:
        """Draw one expert as an ordinary layer, and let the others begin as copies of it. With ``std`` it is drawn from
        a normal distribution, as BERT's linears are.

        So the merged weight of a fresh supernet is exactly that of an ordinary fresh layer, whatever the routers say
        (independent draws mixed equally would have 1/sqrt(E) of its spread). Experts part where the routers give them
        different shares of different subnets' gradients, instead of carrying the difference of two random draws.
        """
        for weight in self.weight[0]:
            if std is not None:
                nn.init.normal_(weight, std=std)
            elif gain is None:
                bound = 1 / math.sqrt(self.max_in_features)
                nn.init.uniform_(weight, -bound, bound)
            else:
                nn.init.xavier_uniform_(weight, gain=gain)
        self.weight[1:] = self.weight[:1]
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def set_active_size(self, in_features: int, out_features: int) -> None:
        """Use the first ``in_features`` columns and the first ``out_features`` rows of each group.

        Raises:
            ValueError: a size is not between 1 and the largest.
        """
        check_size("in_features", in_features, self.max_in_features)
        check_size("out_features", out_features, self.max_out_features)
        self.active_in_features, self.active_out_features = in_features, out_features
        self.release()

    def merge(self, probs: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The active subnet's weight [G*o, i] and bias [G*o]; ``probs`` [E] or [E, G, o], of low rank also [E, R],
        where E > 1.

        Raises:
            ValueError: E > 1 and no ``probs``.
        """
        merge, _ = self._merging(probs)
        return merge().reshape(-1, self.active_in_features), self._merged_bias(probs)

    def _merging(self, probs: Tensor | None) -> tuple[Callable[[], Tensor], tuple[Tensor, ...]]:
        """How the active weight [G, o, i] is made, and of which tensors; of none where it is a slice of one."""
        o, i = self.active_out_features, self.active_in_features
        if self.num_experts > 1 and probs is None:
            raise ValueError("probs is None: experts are mixed by a router, call materialize(probs) first")
        if len(self.weight) > 1:
            return partial(mix_experts, self.weight, probs, o, i), (self.weight, probs)
        shared = self._shared()
        if self.low_rank is None or self._adds_nothing(self.low_rank):
            return lambda: shared, ()
        left, right = self.low_rank.factors(probs, o, i)
        return partial(add_low_rank, shared, left, right), (shared, left, right)

    def _adds_nothing(self, low_rank: LowRankExperts) -> bool:
        """Whether to multiply the shared slice itself: then a fresh supernet's results are bit-equal to those of plain
        weight sharing, on a CPU without gradients. On a GPU the host would wait for the answer in every merge."""
        return not (torch.is_grad_enabled() or self.weight.is_cuda) and low_rank.is_zero

    def _shared(self) -> Tensor:
        return self.weight[0, :, : self.active_out_features, : self.active_in_features]

    def _factors_beside(self, probs: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Factors of experts that train beside frozen weights, where merging is dearer."""
        sizes = self.active_out_features, self.active_in_features
        if self.low_rank is None or self.weight.requires_grad or not torch.is_grad_enabled():
            return None
        return self.low_rank.factors(probs, *sizes) if self.low_rank.is_cheaper_beside(*sizes) else None

    def _merged_bias(self, probs: Tensor | None) -> Tensor | None:
        if self.bias is None:
            return None
        bias = self.bias[:, :, : self.active_out_features]
        if len(bias) == 1 or probs is None:  # None is refused where experts are full matrices
            return bias[0].reshape(-1)
        scale = probs.to(bias.dtype)
        return (bias * (scale.view(-1, 1, 1) if scale.dim() == 1 else scale)).sum(0).reshape(-1)

    def materialize(self, probs: Tensor | None = None) -> None:
        """Merge now and use the result in every forward until :meth:`release`. In training of experts beside frozen
        weights, only their factors are made where that is cheaper."""
        self._beside = self._factors_beside(probs)
        if self._beside is not None:
            self._materialized, self._merged_of = (self._shared().flatten(0, 1), self._merged_bias(probs)), None
            return
        merge, sources = self._merging(probs)
        weight, bias = merge().reshape(-1, self.active_in_features), self._merged_bias(probs)
        if not torch.is_grad_enabled():  # a view that was made so cannot be copied once its parameter has changed
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        self._materialized = weight, bias
        again = sources and weight.requires_grad and weight.numel() >= kernels.policy().remade_mixture
        self._merged_of = (sources, merge) if again else None

    @property
    def has_experts(self) -> bool:
        """Whether it is more than one shared matrix."""
        return self.num_experts > 1 or self.low_rank is not None

    @torch.no_grad()
    def experts(self) -> Tensor:
        """The experts as full matrices, [E, G, O, I]."""
        return self.weight.detach() if self.low_rank is None else self.weight + self.low_rank.products()

    def release(self) -> None:
        """Forget the merged weights."""
        self._materialized = self._merged_of = self._beside = None
        self._packed.clear()

    def forward(self, x: Tensor) -> Tensor:
        """x [..., i] -> [..., G*o]."""
        if self._materialized is None:
            return F.linear(x, *self.merge())
        weight, bias = self._materialized
        with nullcontext() if self._merged_of is None else merged_again(weight, *self._merged_of):
            y = self._packed.linear(x, weight, bias)
        return y if self._beside is None else add_beside(y, x, *self._beside)

    def extra_repr(self) -> str:
        return (
            f"{self.max_in_features}, {self.max_out_features}, groups={self.groups}, "
            f"num_experts={self.num_experts}, bias={self.bias is not None}"
        )
