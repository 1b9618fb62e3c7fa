"""Routers: from the architecture encoding of the active subnet to the mixing weights of the experts.

MoS (arXiv 2306.04845) section 3: an MLP n -> hidden -> ReLU -> dropout -> logits, softmax over the experts in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mos_fairseq.modules import kernels
from mos_fairseq.modules.derived import KeepsDerived
from mos_fairseq.modules.elastic_linear import ElasticLinear
from mos_fairseq.modules.packed_linear import TransposedWeight


def _spread_out(weight: Tensor, bias: Tensor, lowest: Sequence[float], gain: float) -> None:
    """Draw a linear map [..., n] of arch encodings so that its outputs tell subnets apart.

    Feature i of an encoding lies between ``lowest[i]`` and 1. The map is drawn on features centred and scaled to -1..1,
    where the output of the largest or the smallest subnet has standard deviation ``gain``; as the features themselves
    are all positive, it would otherwise be nearly the same for every subnet. Features that never change get no weight.
    """
    low = weight.new_tensor(lowest)
    scale = torch.where(low < 1, 2 / (1 - low).clamp(min=1e-6), 0.0)
    nn.init.normal_(weight, std=gain / math.sqrt(max(1, sum(value < 1 for value in lowest))))
    weight.mul_(scale)
    bias.copy_(-(weight * ((1 + low) / 2)).sum(-1))


class _Router(nn.Module):
    """Trunk of a router, and the initialisation of all its layers.

    The logits of a fresh router have standard deviation 1 over experts (and rows), differently for each subnet: experts
    start as equal matrices (see :class:`ElasticLinear`) and part by the different shares that routers give them.
    """

    def __init__(self, lowest: Sequence[float], hidden_dim: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.trunk = nn.Sequential()
        for index in range(num_layers - 1):
            self.trunk.append(nn.Linear(hidden_dim if index else len(lowest), hidden_dim))
            self.trunk.extend([nn.ReLU(), nn.Dropout(dropout)])
        self.head_in_features = hidden_dim if num_layers > 1 else len(lowest)

    @torch.no_grad()
    def _reset_parameters(self, lowest: Sequence[float], head: nn.Module) -> None:
        linears = [module for module in self.trunk if isinstance(module, nn.Linear)] + [head]
        for index, linear in enumerate(linears):
            gain = 1.0 if linear is head else math.sqrt(2)  # ReLU halves the second moment
            if index == 0:
                _spread_out(linear.weight, linear.bias, lowest, gain)
            else:
                nn.init.normal_(linear.weight, std=gain / math.sqrt(linear.weight.size(-1)))
                nn.init.zeros_(linear.bias)


class LayerRouter(_Router):
    """Layer-wise routing: one mixture p [E] for all expert matrices of a Transformer layer.

    Args:
        lowest: smallest value of each of the n features of the arch encoding; their largest is 1.
        num_experts: E.
        hidden_dim, num_layers, dropout: of the MLP; ``num_layers=1`` is a plain linear router.
    """

    def __init__(
        self, lowest: Sequence[float], num_experts: int, hidden_dim: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__(lowest, hidden_dim, num_layers, dropout)
        self.head = nn.Linear(self.head_in_features, num_experts)
        self._reset_parameters(lowest, self.head)

    def forward(self, encoding: Tensor) -> Tensor:
        """encoding [n] -> probabilities [E], fp32."""
        return torch.softmax(self.head(self.trunk(encoding)).float(), dim=0)


class RankRouter(_Router):
    """Routing of rank components: for each of the M matrices of a Transformer layer a mixture of every component of its
    experts, g [M, E, R].

    Layer-wise routing is the case of equal mixtures. One trunk serves all matrices.

    Args:
        lowest: as in :class:`LayerRouter`.
        num_matrices, num_experts, rank: M, E and R.
        hidden_dim, num_layers, dropout: as in :class:`LayerRouter`.
    """

    def __init__(
        self,
        lowest: Sequence[float],
        num_matrices: int,
        num_experts: int,
        rank: int,
        hidden_dim: int,
        num_layers: int,
        dropout: float,
    ) -> None:
        super().__init__(lowest, hidden_dim, num_layers, dropout)
        self.shape = (num_matrices, num_experts, rank)
        self.head = nn.Linear(self.head_in_features, num_matrices * num_experts * rank)
        self._reset_parameters(lowest, self.head)

    def forward(self, encoding: Tensor) -> Tensor:
        """encoding [n] -> gates [M, E, R], fp32, summing to 1 over E."""
        return torch.softmax(self.head(self.trunk(encoding)).float().view(self.shape), dim=1)


class NeuronRouter(KeepsDerived, _Router):
    """Neuron-wise routing: a mixture for each output row of one expert matrix, P [E, G, o].

    The last layer is elastic: only the o active rows of each of the G groups are used.

    Args:
        lowest: as in :class:`LayerRouter`.
        linear: the :class:`ElasticLinear` it serves (read for E, G and the largest O; not stored).
        hidden_dim, num_layers, dropout: as in :class:`LayerRouter`.
    """

    def __init__(
        self, lowest: Sequence[float], linear: ElasticLinear, hidden_dim: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__(lowest, hidden_dim, num_layers, dropout)
        self.num_experts, self.groups = linear.num_experts, linear.groups
        self.head = ElasticLinear(self.head_in_features, linear.max_out_features, groups=self.num_experts * self.groups)
        self._transposed = TransposedWeight()
        self._reset_parameters(lowest, self.head)

    def forward(self, encoding: Tensor, out_features: int) -> Tensor:
        """encoding [n], o -> probabilities [E, G, o], fp32, summing to 1 over E."""
        return self.probs(self.trunk(encoding), out_features)

    def probs(self, hidden: Tensor, out_features: int) -> Tensor:
        """The same of the trunk's output."""
        plain = not (hidden.is_cpu and kernels.policy().transposed_router)
        if plain or self.training or torch.is_grad_enabled():
            self.forget()  # an update may follow
            self.head.set_active_size(self.head.max_in_features, out_features)
            logits = self.head(hidden)
        else:  # of all rows: the transposed copy must not depend on the active subnet
            logits = self._transposed.linear(hidden, self.head.weight, self.head.bias)
        logits = logits.view(self.num_experts, self.groups, -1)[:, :, :out_features]
        return torch.softmax(logits.float(), dim=0)


ROUTERS = (LayerRouter, NeuronRouter, RankRouter)


def probs_of(routers: Sequence[NeuronRouter], encoding: Tensor, out_features: Sequence[int]) -> list[Tensor]:
    """What each of the routers of a Transformer layer gives, see :meth:`NeuronRouter.forward`.

    Each product of a router is so small that on a GPU its launch is what it costs; there the first layers of all trunks
    are one product. On a CPU they stay products of their own, which round as they always did and copy no weights.
    """
    if encoding.is_cpu or len(routers) == 1 or not routers[0].trunk:
        return [router(encoding, o) for router, o in zip(routers, out_features, strict=True)]
    firsts = [router.trunk[0] for router in routers]
    hidden = F.linear(encoding, torch.cat([m.weight for m in firsts]), torch.cat([m.bias for m in firsts]))
    _, relu, dropout, *_ = routers[0].trunk  # have no parameters
    found = []
    for router, part, o in zip(routers, dropout(relu(hidden)).chunk(len(routers)), out_features, strict=True):
        for module in list(router.trunk)[3:]:
            part = module(part)
        found.append(router.probs(part, o))
    return found
