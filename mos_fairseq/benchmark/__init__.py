"""What a subnet costs: parameters, FLOPs, latency."""

from mos_fairseq.benchmark.cost import Cost, CostOptions, subnet_cost
from mos_fairseq.benchmark.latency import LatencyOptions, SubnetTimer, machine, time_in_turn
from mos_fairseq.benchmark.latency_file import (
    REPEATS,
    check_latency_file,
    measure_to_file,
    read_hat_csv,
    read_latencies,
)

__all__ = [
    "Cost",
    "CostOptions",
    "REPEATS",
    "LatencyOptions",
    "SubnetTimer",
    "check_latency_file",
    "machine",
    "measure_to_file",
    "read_hat_csv",
    "read_latencies",
    "subnet_cost",
    "time_in_turn",
]
