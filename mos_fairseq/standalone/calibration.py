"""Calibrate searched subnets before ranking: a few updates of a few parameters (NASRec, arXiv 2207.07187)."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mos_fairseq.checkpoints import read_checkpoint, read_supernet, save_checkpoint, search_space_of
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import ModelEvaluator
from mos_fairseq.evaluation.options import EvaluationOptions
from mos_fairseq.files import write_atomically
from mos_fairseq.models import TransformerSubnetModel
from mos_fairseq.models.trained_parts import check_parts
from mos_fairseq.search_space import Subnet, check_family
from mos_fairseq.standalone.finetuning import check_rate, default_learning_rate, short_training, without_optimizer
from mos_fairseq.standalone.training import Training, train_all


@dataclass(frozen=True)
class Calibration:
    """Train each subnet alone as its static twin, on the same first batches, and then judge it. The supernet stays
    unchanged. Finished trainings and judgements are kept and not repeated.

    Args:
        supernet: its checkpoint.
        data: the folder made by fairseq-preprocess.
        updates: number of updates of each subnet.
        parts: parameters that train, as in ``--trained-parts`` of ``transformer_subnet``.
        root: folder of the runs.
        options: options for judging subnets.
        fingerprint: of the supernet and its evaluation (:meth:`ModelEvaluator.fingerprint`).
        device: torch's name of the device to judge on.
        lr: the highest learning rate; None: :func:`default_learning_rate`.
        threads: torch's threads of a training process.

    Raises:
        InputError: a part does not exist, models of this family cannot train alone, or the checkpoint has no learning
            rate and none is given.
    """

    supernet: str
    data: str
    updates: int
    parts: str
    root: Path
    options: EvaluationOptions
    fingerprint: str
    device: str = "cpu"
    lr: float | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        family = search_space_of(self._state).family
        check_parts(self.parts, "calibrate_parts")
        rate = default_learning_rate(self._state) if self.lr is None else self.lr
        check_rate(rate, self.supernet, option="--calibrate-lr")
        check_family("calibrate", [TransformerSubnetModel.family.name], self.supernet, family)

    @cached_property
    def _state(self) -> dict[str, Any]:
        return read_supernet(self.supernet)

    def training(self, subnet: Subnet) -> Training:
        """Return the run of one subnet. Raises InputError if it cannot train so."""
        more = ["--trained-parts", self.parts]
        where = (self._state, self.supernet, self.data, subnet, self.updates, self.root)
        return short_training(*where, self.lr, more)

    def judge(self, subnet: Subnet) -> tuple[float, float]:
        """Return the loss in bits per token, or BLEU or chrF, of a calibrated subnet, and its training time in seconds.

        Raises:
            InputError: the training failed.
        """
        training = self.training(subnet)
        kept = training.folder / f"calibrated-{self.updates}-{self.fingerprint}.json"
        if kept.exists():
            try:
                found = json.loads(kept.read_text(encoding="utf-8"))
                return float(found["quality"]), float(found["seconds"])
            except (OSError, ValueError, KeyError, TypeError):
                raise InputError(f"{kept}: cannot be read; remove it to judge anew") from None
        began = time.perf_counter()
        for _ in train_all([training], 1, self.threads):
            pass
        seconds = round(time.perf_counter() - began, 2)  # once, so that a run that goes on tells the same
        evaluator = ModelEvaluator(str(training.result), self.data, self.options, self.device)
        quality = evaluator.loss() if evaluator.metric is None else evaluator.score(*evaluator.translate())
        write_atomically(kept, json.dumps({"quality": quality, "seconds": seconds}))
        return quality, seconds

    def save(self, subnet: Subnet, path: Path) -> None:
        """Write the checkpoint of a judged subnet. Raises InputError if it cannot be written."""
        save_checkpoint(without_optimizer(read_checkpoint(self.training(subnet).result)), path)
