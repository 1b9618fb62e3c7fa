"""What a subnet costs: parameters, FLOPs, latency."""

from mos_fairseq.benchmark.cost import Cost, CostOptions, subnet_cost

__all__ = ["Cost", "CostOptions", "subnet_cost"]
