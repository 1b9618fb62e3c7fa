"""Learning-rate schedulers registered with fairseq."""

from mos_fairseq.optim.lr_scheduler.eden import EdenSchedule, EdenScheduleConfig
from mos_fairseq.optim.lr_scheduler.exponential_constant import (
    ExponentialConstantSchedule,
    ExponentialConstantScheduleConfig,
)

__all__ = ["EdenSchedule", "EdenScheduleConfig", "ExponentialConstantSchedule", "ExponentialConstantScheduleConfig"]
