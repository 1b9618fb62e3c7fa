"""Latency: measured on this machine, and predicted from measurements."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "features": ["Features"],
        "file": ["check_latency_file", "measure_to_file"],
        "measured": ["Latencies", "first_difference", "read_hat_csv", "read_latencies"],
        "options": ["DTYPES", "REPEATS", "LatencyOptions"],
        "predictor": ["MODELS", "LatencyPredictor", "doubts", "fit_predictor", "score"],
        "split": ["SPLIT_KEYS", "SplitLatency"],
        "timer": ["SubnetTimer", "machine", "time_in_turn"],
    },
)
