"""Data parallel training of supernets: whose gradients exist differs from update to update."""

from mos_fairseq.distributed.launch import (
    check_launch,
    data_parallel_rank,
    data_parallel_size,
    largest_of_ranks,
    of_first_rank,
    raise_together,
)
from mos_fairseq.distributed.local_rounds import AVERAGES, MOMENTS, LocalDataParallel, LocalRounds
from mos_fairseq.distributed.supernet_data_parallel import SupernetDataParallel

__all__ = [
    "AVERAGES",
    "MOMENTS",
    "LocalDataParallel",
    "LocalRounds",
    "SupernetDataParallel",
    "check_launch",
    "data_parallel_rank",
    "data_parallel_size",
    "largest_of_ranks",
    "of_first_rank",
    "raise_together",
]
