"""Write a trained matrix into an elastic linear, in all its experts; into two factors by singular values."""

from __future__ import annotations

import copy
import logging
from typing import TypeVar

import torch
from torch import Tensor, nn

from mos_fairseq.errors import InputError
from mos_fairseq.modules import ElasticLinear, FactoredLinear
from mos_fairseq.modules.factored_linear import product, truncated_factors
from mos_fairseq.search_space import Subnet

logger = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=nn.Module)


def fill(target: ElasticLinear | FactoredLinear, weight: Tensor, bias: Tensor, rows: Tensor, columns: Tensor) -> None:
    """Make every expert ``weight`` [G, O, I] with ``bias`` [G, O], in the order of ``rows`` and ``columns``.

    Raises:
        InputError: factors are to be made of values that are not finite.
    """
    weight, bias = weight[:, rows][:, :, columns], bias[:, rows]
    if isinstance(target, FactoredLinear):
        if not weight.isfinite().all():
            raise InputError(
                "the checkpoint: a feed-forward matrix has values that are not finite, which have no singular vectors; "
                "nothing is written. Has its training diverged?"
            )
        weight, down = truncated_factors(weight[0], target.up.max_in_features)
        target.down.weight.copy_(down.expand_as(target.down.weight))
        target = target.up
    target.weight.copy_(weight.expand_as(target.weight))
    if target.bias is not None:
        target.bias.copy_(bias.expand_as(target.bias))


def is_cut(largest: Subnet) -> bool:
    """Return whether factors of the ``largest`` subnet have a lower rank than their matrices may have."""
    return any(0 < layer.rank < min(layer.width, layer.ffn) for layer in largest.all_layers)


@torch.no_grad()
def truncated(model: _Model, largest: Subnet) -> _Model:
    """Return a copy of ``model`` whose feed-forward matrices have the rank of the ``largest`` subnet, and warn
    of what that loses. Without ranks, it is the model itself."""
    if not any(layer.rank for layer in largest.all_layers):
        return model
    model = copy.deepcopy(model)
    losses = []
    for stack in largest.family.stacks:
        for layer, sizes in zip(getattr(model, stack.name).layers, largest.layers(stack.name), strict=True):
            for linear in (layer.fc1, layer.fc2):
                whole = linear.weight.clone()
                linear.weight.copy_(product(*truncated_factors(whole, sizes.rank)))
                losses.append(float((linear.weight - whole).norm() / whole.norm().clamp_min(1e-30)))
    if max(losses) > 1e-5:  # beyond rounding
        mean = sum(losses) / len(losses)
        logger.warning(
            "ranks of the search space lose %.1f %% of the feed-forward matrices' norm (%.1f %% at most): the largest "
            "subnet is an approximation of the model, and needs training",
            100 * mean,
            100 * max(losses),
        )
    return model
