"""What a subnet costs: parameters, FLOPs, latency."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "cost": ["Cost", "CostOptions", "subnet_cost"],
        "latency": ["SubnetTimer", "machine", "time_in_turn"],
        "latency_file": ["check_latency_file", "measure_to_file"],
        "latency_options": ["DTYPES", "REPEATS", "LatencyOptions"],
        "measured": ["Latencies", "read_hat_csv", "read_latencies"],
    },
)
