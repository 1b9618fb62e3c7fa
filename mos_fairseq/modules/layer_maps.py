"""Linear maps around the layers of a stack, where layers have widths of their own (SuperShaper, arXiv 2110.04711;
Electra, arXiv 2003.10555). Neither residual, norm nor activation comes between the map out of a layer and that into the
next, so that for one subnet they are one map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mos_fairseq.modules.elastic_linear import ElasticLinear
from mos_fairseq.modules.packed_linear import Linear

_STD = 0.02  # as in BERT


class LayerMaps(nn.ModuleList):
    """Dense maps, merged where two would meet.

    Args:
        widths: (input, output) before each layer, and after the last; None where there is no map.
    """

    def __init__(self, widths: Sequence[tuple[int, int] | None]) -> None:
        super().__init__(nn.Identity() if pair is None else Linear(*pair) for pair in widths)

    @torch.no_grad()
    def reset_parameters(self, identity: bool) -> None:
        """Start as identities on the channels that both ends have, or as draws."""
        for module in self:
            if isinstance(module, nn.Linear):
                _reset(module.weight, module.bias, identity)

    def before(self, index: int, x: Tensor) -> Tensor:
        """The input of the layer with this number: x [..., d] -> [..., d']."""
        return self[index](x)

    def after(self, x: Tensor) -> Tensor:
        """What follows the last layer: x [..., d] -> [..., d']."""
        return self[-1](x)


class ElasticLayerMaps(nn.Module):
    """Maps of a supernet: into each layer and out of it, or into the first and out of the last.

    Args:
        outside: largest width of what the layers stand between.
        widths: largest width of each layer.
        around_each: maps stand around each layer.
    """

    def __init__(self, outside: int, widths: Sequence[int], around_each: bool) -> None:
        super().__init__()
        widths = widths if around_each else widths[:1]
        self.around_each = around_each
        self.into = nn.ModuleList(ElasticLinear(outside, width) for width in widths)
        self.out = nn.ModuleList(ElasticLinear(width, outside) for width in widths)
        self.num_active = len(widths)

    @torch.no_grad()
    def reset_parameters(self, identity: bool) -> None:
        """Start as identities on the channels that both ends have, or as draws."""
        for linear in (*self.into, *self.out):
            _reset(linear.weight[0, 0], linear.bias, identity)

    def set_active_sizes(self, outside: int, widths: Sequence[int]) -> None:
        """Use these widths: outside of the layers, and of each layer that runs."""
        widths = widths if self.around_each else widths[:1]
        self.num_active = len(widths)
        for into, out, width in zip(self.into, self.out, widths, strict=False):
            into.set_active_size(outside, width)
            out.set_active_size(width, outside)

    def before(self, index: int, x: Tensor) -> Tensor:
        """As :meth:`LayerMaps.before`."""
        if index and not self.around_each:
            return x
        return self.into[index](self.out[index - 1](x) if index else x)

    def after(self, x: Tensor) -> Tensor:
        """As :meth:`LayerMaps.after`."""
        return self.out[self.num_active - 1](x)

    def merged(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of the maps of the active subnet's :class:`LayerMaps`, products made in double precision."""
        into, out = ([linear.merge() for linear in list(side)[: self.num_active]] for side in (self.into, self.out))
        between = []
        for (weight_out, bias_out), (weight_in, bias_in) in zip(out[:-1], into[1:], strict=True):
            weight = weight_in.double() @ weight_out.double()
            bias = weight_in.double() @ bias_out.double() + bias_in.double()
            between.append((weight.to(weight_in.dtype), bias.to(bias_in.dtype)))
        return [into[0], *between, out[-1]]


def _reset(weight: Tensor, bias: Tensor, identity: bool) -> None:
    if identity:
        nn.init.eye_(weight)
    else:
        nn.init.normal_(weight, std=_STD)
    nn.init.zeros_(bias)
