"""Training data of each process's own (``--shard-data``)."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fairseq import utils

from mos_fairseq.distributed import data_parallel_rank, data_parallel_size, largest_of_ranks
from mos_fairseq.errors import InputError

if TYPE_CHECKING:  # the class that the mixin precedes
    from fairseq.tasks import FairseqTask as _Base
else:
    _Base = object


class ShardedData(_Base):
    """Mixin that trains each data-parallel process on a folder of its own, in every epoch: the Nth process on the Nth
    of the folders that the data argument lists, as in federated learning. fairseq trains all processes on one folder an
    epoch, in turn. Dictionaries and all other sets are the first folder's.

    An epoch is as long as the most batches of a process; the others have empty batches in between, in which they train
    nothing.
    """

    cfg: Any
    dictionary_names: Callable[[Any, str], tuple[str, ...]]
    _is_training: bool

    def has_sharded_data(self, split: str) -> bool:
        """Return whether a set changes from epoch to epoch."""
        return not self._own_folder(split) and super().has_sharded_data(split)

    def load_dataset(self, split: str, epoch: int = 1, *args: Any, **kwargs: Any) -> None:
        """Load as fairseq's task does, the training set from this process's folder.

        Raises:
            InputError: there is one process only, or not a folder for each, or its dictionary is not the first's.
        """
        if self._own_folder(split):
            epoch = 1 + self._check_folders()  # fairseq takes the Nth folder in the Nth epoch
        super().load_dataset(split, epoch, *args, **kwargs)

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Return fairseq's iterator; over this process's own training set, with empty batches at the end of its list,
        which fairseq shuffles."""
        split = self.cfg.train_subset
        if not self._own_folder(split) or dataset is not self.datasets.get(split):
            return super().get_batch_iterator(dataset, *args, **kwargs)
        found = super().get_batch_iterator(dataset, *args, **(kwargs | {"num_shards": 1, "shard_id": 0}))
        if callable(found.batch_sampler):
            raise InputError("shard_data is True with rebuild_batches True: allowed is False")
        own = found.frozen_batches
        found._frozen_batches = (*own, *([] for _ in range(largest_of_ranks(len(own)) - len(own))))
        return found

    def _own_folder(self, split: str) -> bool:
        return self.cfg.shard_data and self._is_training and split == self.cfg.train_subset

    def _check_folders(self) -> int:
        """Return this process's rank."""
        folders, size, rank = utils.split_paths(self.cfg.data), data_parallel_size(), data_parallel_rank()
        if size == 1:
            raise InputError("shard_data is True: it has no effect in one process")
        if len(folders) != size:
            raise InputError(
                f"shard_data is True: data lists {len(folders)} folders for {size} processes; allowed is one for each, "
                f"separated by {os.pathsep}"
            )
        for name in self.dictionary_names(self.cfg, folders[0]):
            first, mine = (os.path.join(folder, name) for folder in (folders[0], folders[rank]))
            if not os.path.exists(mine):
                raise InputError(f"shard_data is True: {folders[rank]} lacks {name}; allowed is the first folder's")
            if not filecmp.cmp(first, mine, shallow=False):
                raise InputError(
                    f"shard_data is True: {mine} is not {first}; allowed is one dictionary for all folders"
                )
        return rank
