"""``mos-benchmark``: what supernets cost in time and memory, against plain weight sharing and stock fairseq."""

from mos_fairseq.benchmark.speed.plot import plot_suite
from mos_fairseq.benchmark.speed.suites import SUITES, run_suite
from mos_fairseq.benchmark.speed.timing import Section
from mos_fairseq.benchmark.speed.variants import SpeedOptions, Variants

__all__ = ["SUITES", "Section", "SpeedOptions", "Variants", "plot_suite", "run_suite"]
