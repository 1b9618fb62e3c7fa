"""Count a supernet's parameters, for the log."""

from __future__ import annotations

from torch import nn

from mos_fairseq.modules import ROUTERS, ElasticLinear
from mos_fairseq.modules.layer_maps import ElasticLayerMaps
from mos_fairseq.search_space import Subnet


def parameter_summary(model: nn.Module) -> str:
    """Return one line: parameters of a supernet's experts and routers, and of its largest subnet without both.

    (fairseq's own log line "expert model params" refers to mixtures over tokens.)
    """
    linears = [m for m in model.modules() if isinstance(m, ElasticLinear) and m.has_experts]
    routers = [m for m in model.modules() if isinstance(m, ROUTERS)]
    in_routers = sum(p.numel() for router in routers for p in router.parameters())
    largest = sum(p.numel() for p in model.parameters()) - in_routers - sum(map(_vanish_in_merging, linears))
    largest -= _vanish_in_products(model.search_space.largest()) + _vanish_between_layers(model)
    alone = f"the largest subnet alone: {largest:,}"
    if not linears:
        return f"no experts, no routers; {alone}"
    where = {"ffn": "FFN", "attention": "attention", "all": "FFN and attention"}[str(model.cfg.mos_linears)]
    counted = f"{sum(map(_of_experts, linears)):,} parameters; routers: {in_routers:,}"
    number, low_rank = linears[0].num_experts, linears[0].low_rank
    experts = f"{number} expert{'s' if number > 1 else ''}{f' of rank {low_rank.rank}' if low_rank is not None else ''}"
    return f"{experts} in {len(linears)} {where} linears: {counted}; {alone}"


def _vanish_in_products(largest: Subnet) -> int:
    """Return the parameters of factors beyond those of their products, where a rank does not pay."""
    dense = [layer for layer in largest.all_layers if layer.rank and not layer.rank_pays]
    return sum(2 * (layer.factors_size - layer.matrix_size) for layer in dense)


def _vanish_between_layers(model: nn.Module) -> int:
    """Return the parameters of maps out of layers and into the next ones beyond those of their products."""
    maps = [m for m in model.modules() if isinstance(m, ElasticLayerMaps)]
    largest = model.search_space.largest()
    pairs = [pair for stack in largest.family.stacks for pair in largest.maps(stack.name) if pair is not None]
    products = sum((before + 1) * after for before, after in pairs)
    return sum(p.numel() for module in maps for p in module.parameters()) - products


def _of_experts(linear: ElasticLinear) -> int:
    """Parameters of its experts: of low rank, those of the factors."""
    return sum(p.numel() for p in (linear if linear.low_rank is None else linear.low_rank).parameters())


def _vanish_in_merging(linear: ElasticLinear) -> int:
    """Parameters that a subnet does not have: E full experts become one matrix, factors are added to the shared one."""
    count = _of_experts(linear)
    return count if linear.low_rank is not None else count - count // linear.num_experts
