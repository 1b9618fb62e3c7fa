"""Count a supernet's parameters, for the log."""

from __future__ import annotations

from torch import nn

from mos_fairseq.modules import ElasticLinear, LayerRouter, NeuronRouter


def parameter_summary(model: nn.Module) -> str:
    """Return one line: parameters of a supernet's experts and routers, and of its largest subnet without both.

    (fairseq's own log line "expert model params" refers to mixtures over tokens.)
    """
    linears = [m for m in model.modules() if isinstance(m, ElasticLinear) and m.num_experts > 1]
    routers = [m for m in model.modules() if isinstance(m, (LayerRouter, NeuronRouter))]
    of_experts = [(m.num_experts, sum(p.numel() for p in m.parameters())) for m in linears]
    in_routers = sum(p.numel() for router in routers for p in router.parameters())
    largest = sum(p.numel() for p in model.parameters()) - in_routers
    largest -= sum(count - count // experts for experts, count in of_experts)  # merged, E experts are one matrix
    alone = f"the largest subnet alone: {largest:,}"
    if not linears:
        return f"no experts, no routers; {alone}"
    where = {"ffn": "FFN", "attention": "attention", "all": "FFN and attention"}[str(model.cfg.mos_linears)]
    counted = f"{sum(count for _, count in of_experts):,} parameters; routers: {in_routers:,}"
    return f"{linears[0].num_experts} experts in {len(linears)} {where} linears: {counted}; {alone}"
