"""Batches of a held-out set, on which subnets are compared while a supernet trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fairseq import utils
from fairseq.data import data_utils
from fairseq.tasks import FairseqTask

from mos_fairseq.distributed import of_first_rank
from mos_fairseq.errors import InputError
from mos_fairseq.models.switches import keep_active_subnet
from mos_fairseq.search_space import Subnet


class HeldOut:
    """The set in batches of ``--max-tokens-valid`` and ``--batch-size-valid``, in an order given by the seed.

    Examples that fit no batch, or are longer than the model allows, are left out.

    Args:
        task: the task that loads the set.
        subset: name of the set.
        max_positions: the model's.

    Raises:
        InputError: the set does not exist, is the training set, or none of its examples fits.
    """

    def __init__(self, task: Any, subset: str, max_positions: Any) -> None:
        self.task, self.subset = task, subset
        if subset == task.cfg.train_subset:  # judging would set its masks back
            raise InputError(f"controller_subset is {subset}: subnets train on this set; allowed are other ones")
        if subset not in task.datasets:
            task.load_dataset(subset, combine=False, epoch=1)
        self.dataset = task.datasets[subset]
        self._batches = self._in_batches(utils.resolve_max_positions(task.max_positions(), max_positions))

    def judge(self, number: int, subnets: Sequence[Subnet], model: Any, criterion: Any) -> list[float]:
        """Return the loss of each of ``subnets`` on batch ``number`` (modulo the number of batches).

        It is without label smoothing if the criterion reports that. All processes of a training get the first one's
        losses. The active subnet is restored."""
        sample = self._sample(number, model)
        losses = []
        with keep_active_subnet(model):
            for subnet in subnets:
                model.set_active_subnet(subnet)
                loss, _, log = FairseqTask.valid_step(self.task, sample, model, criterion)
                losses.append(float(log.get("nll_loss", loss)))
        return of_first_rank(losses, next(model.parameters()).device)

    def _sample(self, number: int, model: Any) -> dict[str, Any]:
        self.dataset.set_epoch(1)  # as in validation, because masks depend on the epoch
        batches = self._batches
        indices = batches[number % len(batches)]
        sample = self.dataset.collater([self.dataset[int(index)] for index in indices])
        device = next(model.parameters()).device
        return utils.apply_to_sample(lambda tensor: tensor.to(device), sample)

    def _in_batches(self, longest: Any) -> list[np.ndarray]:
        cfg, count = self.task.cfg, len(self.dataset)
        order = np.random.default_rng(cfg.seed).permutation(count)
        order = self.task.filter_indices_by_size(order, self.dataset, longest, ignore_invalid_inputs=True)
        if cfg.max_tokens_valid is not None:
            order = np.array([i for i in order if self.dataset.num_tokens(i) <= cfg.max_tokens_valid], dtype=np.int64)
        if not len(order):
            raise InputError(f"controller_subset is {self.subset}: none of its {count} examples fits a batch")
        sizes = {"max_tokens": cfg.max_tokens_valid, "max_sentences": cfg.batch_size_valid}
        return data_utils.batch_by_size(order, self.dataset.num_tokens, **sizes)
