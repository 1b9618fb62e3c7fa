"""``eden``: the learning rate of ScaledAdam, which falls with updates and with epochs (arXiv 2310.11230)."""

from dataclasses import dataclass, field

from fairseq.dataclass import FairseqDataclass
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.optim.values import only_rate


@dataclass
class EdenScheduleConfig(FairseqDataclass):
    """Options of the schedule."""

    eden_updates: float = field(
        default=5000.0, metadata={"help": "updates after which the rate falls; larger is slower"}
    )
    eden_epochs: float = field(default=6.0, metadata={"help": "epochs after which the rate falls; larger is slower"})
    warmup_updates: int = field(default=500, metadata={"help": "updates in which the rate rises linearly to its curve"})
    eden_warmup_start: float = field(default=0.5, metadata={"help": "share of the rate at the start of the warm-up"})
    lr: list[float] = II("optimization.lr")


@register_lr_scheduler("eden", dataclass=EdenScheduleConfig)
class EdenSchedule(FairseqLRScheduler):
    """After t updates, in the epoch that follows e whole ones, with B ``eden_updates``, E ``eden_epochs`` and w of
    warm-up that starts at s::

        lr(t, e) = lr (t²/B² + 1)^-1/4 (e²/E² + 1)^-1/4 min(1, s + (1 - s) t / w)

    Raises:
        InputError: bad options, or several learning rates.
    """

    def __init__(self, cfg: EdenScheduleConfig, optimizer) -> None:
        super().__init__(cfg, optimizer)
        self.base_lr = only_rate(cfg.lr, "eden")
        at_least(0, warmup_updates=cfg.warmup_updates)
        for name in ("eden_updates", "eden_epochs"):
            if not 0 < getattr(cfg, name) < float("inf"):
                raise InputError(f"{name} is {getattr(cfg, name)}: allowed are numbers above 0")
        if not 0 <= cfg.eden_warmup_start <= 1:
            raise InputError(f"eden_warmup_start is {cfg.eden_warmup_start}: allowed are numbers from 0 to 1")
        self.epochs = 0  # completed; fairseq sets it whenever a training starts or resumes
        self.step_update(0)

    def step_begin_epoch(self, epoch: int) -> None:
        """Store the epoch, counted from 1."""
        self.epochs = epoch - 1

    def step_update(self, num_updates: int) -> float:
        """Set and return the rate after ``num_updates`` updates."""
        cfg = self.cfg
        lr = self.base_lr
        for done, scale in ((num_updates, cfg.eden_updates), (self.epochs, cfg.eden_epochs)):
            lr *= ((done / scale) ** 2 + 1) ** -0.25
        if num_updates < cfg.warmup_updates:
            lr *= cfg.eden_warmup_start + (1 - cfg.eden_warmup_start) * num_updates / cfg.warmup_updates
        self.optimizer.set_lr(lr)
        return lr
