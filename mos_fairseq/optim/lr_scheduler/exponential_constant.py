"""``exponential_constant``: BigNAS's learning rate, exponentially decaying with constant ending (arXiv 2003.11142)."""

from dataclasses import dataclass, field

from fairseq.dataclass import FairseqDataclass
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.optim.values import only_rate


@dataclass
class ExponentialConstantScheduleConfig(FairseqDataclass):
    """Options of the schedule."""

    warmup_updates: int = field(default=0, metadata={"help": "updates in which the rate rises linearly to --lr"})
    warmup_init_lr: float = field(default=0.0, metadata={"help": "rate at the start of the warm-up"})
    decay_updates: int = field(
        default=0, metadata={"help": "updates, after the warm-up, in which the rate falls to its constant ending"}
    )
    end_lr_ratio: float = field(default=0.05, metadata={"help": "the constant ending's rate over --lr"})
    lr: list[float] = II("optimization.lr")


@register_lr_scheduler("exponential_constant", dataclass=ExponentialConstantScheduleConfig)
class ExponentialConstantSchedule(FairseqLRScheduler):
    """Large steps first, and a constant rate at the end, where BigNAS finds that small subnets go on learning.

    After t updates, with w of warm-up and d of decay::

        lr(t) = warmup_init_lr + (lr - warmup_init_lr) t / w     for t < w
        lr(t) = lr end_lr_ratio^min(1, (t - w) / d)              otherwise

    Raises:
        InputError: bad options, or several learning rates.
    """

    def __init__(self, cfg: ExponentialConstantScheduleConfig, optimizer) -> None:
        super().__init__(cfg, optimizer)
        self.peak_lr = only_rate(cfg.lr, "exponential_constant")
        at_least(0, warmup_updates=cfg.warmup_updates)
        at_least(1, decay_updates=cfg.decay_updates)
        if not 0 < cfg.end_lr_ratio <= 1:
            raise InputError(f"end_lr_ratio is {cfg.end_lr_ratio}: allowed are numbers above 0, up to 1")
        self.step_update(0)

    def step_update(self, num_updates: int) -> float:
        """Set and return the rate after ``num_updates`` updates."""
        cfg, t = self.cfg, num_updates
        if t < cfg.warmup_updates:
            lr = cfg.warmup_init_lr + (self.peak_lr - cfg.warmup_init_lr) * t / cfg.warmup_updates
        else:
            lr = self.peak_lr * cfg.end_lr_ratio ** min(1.0, (t - cfg.warmup_updates) / cfg.decay_updates)
        self.optimizer.set_lr(lr)
        return lr
