"""Options of a latency measurement. Importing this needs no torch, except to check a device."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mos_fairseq.device import check_device
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.model_options import ModelOptions
from mos_fairseq.search_space import Family, check_options

MIN_ITERATIONS = 5
DTYPES = ("float32", "float16", "bfloat16")
# Visits of a subnet, spread over the whole run. Visits of 5 iterations differed by 5.7 %; the scatter of their
# iterations explains 3 to 4. Longer visits cannot remove the rest, but more visits can (halves of 20 visits agree to
# 2.0 %, of 8 to 3.2 %, of 4 to 4.4 %). Ten times 1 + 5 runs take as long as three times 3 + 20.
REPEATS = 10


@dataclass(frozen=True)
class LatencyOptions(ModelOptions):
    """Settings of a measurement.

    Args:
        vocab_size: entries of the (joined) dictionary.
        batch_size: sentences translated at once.
        src_len, tgt_len: tokens of each sentence, its end included; a search runs exactly ``tgt_len`` steps.
        beam: width of the search; 1 is greedy.
        threads: torch's threads on a CPU; None keeps torch's own choice.
        warmup, iterations: numbers of runs that do not count, and that count.
        workload: the timed work, one of the family's workloads; None is the family's default.

    Raises:
        InputError: a value is out of range, the dtype is unknown, or the device does not exist.
    """

    vocab_size: int
    batch_size: int = 1
    src_len: int = 30
    tgt_len: int = 30
    beam: int = 5
    device: str = "cpu"
    threads: int | None = None
    dtype: str = "float32"
    warmup: int = 1
    iterations: int = 5
    workload: str | None = None

    def __post_init__(self) -> None:
        least = dict.fromkeys(("batch_size", "src_len", "beam", "threads"), 1)
        least |= {"vocab_size": 5, "tgt_len": 2, "warmup": 0, "iterations": MIN_ITERATIONS}
        for name, low in least.items():
            at_least(low, **{name: getattr(self, name)})
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype}: allowed are {', '.join(DTYPES)}")
        if 2 * self.beam >= self.vocab_size:
            raise InputError(f"beam is {self.beam}: allowed is less than half the vocabulary of {self.vocab_size}")
        check_device(self.device)

    def of_family(self, family: Family) -> LatencyOptions:
        """Return the options with a workload. Raises InputError if one has no effect on subnets of ``family``."""
        check_options(self, family)
        workload = self.workload or family.workloads[0]
        if workload not in family.workloads:
            known = ", ".join(family.workloads)
            raise InputError(f"workload is {workload}: allowed for family {family.name} are {known}")
        if workload in ("forward", "features") and self.beam != LatencyOptions.beam:
            raise InputError(f"beam is {self.beam}: it has no effect with workload {workload}")
        return replace(self, workload=workload)
