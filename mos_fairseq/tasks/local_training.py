"""What a task does in local rounds (``--local-updates``): when they end, and what is told of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fairseq.optim import AMPOptimizer, FP16Optimizer, MemoryEfficientFP16Optimizer

from mos_fairseq.distributed import LocalDataParallel, data_parallel_size
from mos_fairseq.errors import InputError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:  # what the mixin is put in front of
    from fairseq.tasks import FairseqTask as _Base
else:
    _Base = object


class LocalTraining(_Base):
    """Mixin: a round ends after every Nth update, counted from the first of the training, and before validations and
    checkpoints, which so see one model, whatever process they are in. A training that goes on begins a round.

    A checkpoint holds the first process's moments of the optimizer: with ``--local-moments keep`` they are averaged
    before it is written, so that whoever goes on from it does what this training does.
    """

    cfg: Any
    _local: tuple[LocalDataParallel, Any] | None = None
    _sent = 0

    @property
    def trains_locally(self) -> bool:
        """Read by the repairs of fairseq's trainer, which expects equal gradients otherwise."""
        return self.cfg.local_updates > 0

    def check_local_training(self) -> None:
        """Raise InputError where there are no processes to average."""
        if self.trains_locally and data_parallel_size() == 1:
            raise InputError(f"local_updates is {self.cfg.local_updates}: it has no effect in one process")

    def optimizer_step(self, optimizer, model, update_num) -> None:
        """As fairseq's, and the end of a round."""
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
        """As fairseq's, and the end of a round."""
        super().begin_valid_epoch(epoch, model)
        self._end_round()

    def before_checkpoint(self) -> None:
        """Called in every process."""
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
