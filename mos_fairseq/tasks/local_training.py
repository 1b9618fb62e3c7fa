"""Local rounds (``--local-updates``) of a task: when a round ends, and its log line."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fairseq.optim import AMPOptimizer, FP16Optimizer, MemoryEfficientFP16Optimizer

from mos_fairseq.distributed import LocalDataParallel, data_parallel_size
from mos_fairseq.errors import InputError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:  # the class that the mixin precedes
    from fairseq.tasks import FairseqTask as _Base
else:
    _Base = object


class LocalTraining(_Base):
    """Mixin that ends a round after every Nth update, counted from the first of the training. A round also ends before
    a validation and before a checkpoint, so that all processes have one model there. A resumed training begins a round.

    A checkpoint contains the optimizer's moments of the first process only. With ``--local-moments keep`` they are
    averaged before the checkpoint is written, so that a resumed training equals this one.
    """

    cfg: Any
    _local: tuple[LocalDataParallel, Any] | None = None
    _sent = 0

    @property
    def trains_locally(self) -> bool:
        """Whether processes train on their own. The repairs of fairseq's trainer read it."""
        return self.cfg.local_updates > 0

    def check_local_training(self) -> None:
        """Raise InputError if there is one process only, or if --store-ema would follow the first process's weights."""
        if not self.trains_locally:
            return
        if data_parallel_size() == 1:
            raise InputError(f"local_updates is {self.cfg.local_updates}: it has no effect in one process")
        if self.cfg.store_ema:
            raise InputError(
                f"store_ema is True with local_updates {self.cfg.local_updates}: the average would follow the first "
                "process's weights only; allowed is False"
            )

    def optimizer_step(self, optimizer, model, update_num) -> None:
        """Step as fairseq does, and end a round that is complete."""
        if self.trains_locally:
            if isinstance(optimizer, (AMPOptimizer, FP16Optimizer, MemoryEfficientFP16Optimizer)):
                raise InputError("local_updates is given with --fp16, --bf16 or --amp: allowed is full precision")
            if type(optimizer).__name__ == "ScaledAdam":
                raise InputError("local_updates is given with optimizer scaled_adam, which knows one model only")
            self._local = model, optimizer.optimizer
        super().optimizer_step(optimizer, model, update_num)
        if self.trains_locally and (update_num + 1) % self.cfg.local_updates == 0:
            self._end_round()

    def begin_valid_epoch(self, epoch, model) -> None:
        """Begin as fairseq does, after the end of the round."""
        super().begin_valid_epoch(epoch, model)
        self._end_round()

    def before_checkpoint(self) -> None:
        """End the round; every process has to call it."""
        self._end_round()
        if self._local is not None and str(self.cfg.local_moments) == "keep":
            model, optimizer = self._local
            self._sent += model.average_moments(optimizer)

    def _end_round(self) -> None:
        if self._local is None:
            return
        model, optimizer = self._local
        if not model.open_updates:
            return
        done = model.end_round(optimizer)
        self._sent += done.sent
        logger.info(
            "round of %d updates: %d of %d tensors averaged; each process sent %.3f MB, %.3f MB so far",
            done.updates,
            done.averaged,
            done.tensors,
            done.sent / 1e6,
            self._sent / 1e6,
        )
