"""Training data of each process's own (``--shard-data``)."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fairseq import utils

from mos_fairseq.distributed import data_parallel_rank, data_parallel_size, largest_of_ranks, raise_together
from mos_fairseq.errors import InputError

if TYPE_CHECKING:  # the class that the mixin precedes
    from fairseq.tasks import FairseqTask as _Base
else:
    _Base = object


class ShardedData(_Base):
    """Mixin that trains each data-parallel process on a folder of its own, in every epoch: the Nth process on the Nth
    of the folders that the data argument lists, as in federated learning. fairseq trains all processes on one folder an
    epoch, in turn. Dictionaries and all other sets are the first folder's.

    An epoch is as long as the most mini-batches of a process. The others have empty ones in between, in which they
    train nothing.
    """

    cfg: Any
    dictionary_names: Callable[[Any, str], tuple[str, ...]]
    _is_training: bool

    def has_sharded_data(self, split: str) -> bool:
        """Return whether a set changes from epoch to epoch."""
        return not self._shards and super().has_sharded_data(split)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load as fairseq's task does, the training set from this process's folder.

        Raises:
            InputError: in all processes, if in any of them an option does not fit, there is not a folder for each, the
                set is missing, or a dictionary is not the first folder's.
        """
        if not self._shards or split != self.cfg.train_subset:
            return super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        folders = self._folders()
        rank, problem = data_parallel_rank(), None
        try:
            self._check_dictionaries(folders[0], folders[rank])
            # fairseq takes the Nth folder in the Nth epoch
            super().load_dataset(split, epoch=1 + rank, combine=combine, **kwargs)
        except (InputError, FileNotFoundError) as error:
            problem = f"shard_data is True: {folders[rank]}: {error}"
        raise_together(problem)

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Return fairseq's iterator; over this process's own training set, with empty batches at the end of its list,
        which fairseq shuffles.

        Raises:
            InputError: in all processes, if any of them has no mini-batch, or batches change from epoch to epoch.
        """
        if not self._shards or dataset is not self.datasets.get(self.cfg.train_subset):
            return super().get_batch_iterator(dataset, *args, **kwargs)
        if kwargs.get("grouped_shuffling"):
            raise InputError("shard_data is True with grouped_shuffling True: allowed is False")
        found = super().get_batch_iterator(dataset, *args, **(kwargs | {"num_shards": 1, "shard_id": 0}))
        if callable(found.batch_sampler):
            raise InputError("shard_data is True with rebuild_batches True: allowed is False")
        own = found.frozen_batches
        folder = self._folders()[data_parallel_rank()]
        raise_together(
            None if own else f"shard_data is True: {folder} has no sentence that is short enough to train on"
        )
        found._frozen_batches = (*own, *([] for _ in range(largest_of_ranks(len(own)) - len(own))))
        return found

    @property
    def _shards(self) -> bool:
        return self.cfg.shard_data and self._is_training

    def _folders(self) -> list[str]:
        """Return the folders of all processes. The error is the same in all."""
        folders, size = utils.split_paths(self.cfg.data), data_parallel_size()
        if size == 1:
            raise InputError("shard_data is True: it has no effect in one process")
        if len(folders) != size:
            raise InputError(
                f"shard_data is True: data is {self.cfg.data} for {size} processes; allowed is a folder for each, "
                f"separated by {os.pathsep}"
            )
        # fairseq's trainer counts the sentences of an empty mini-batch, or none of an update that ends with one
        if list(self.cfg.update_freq) != [1]:
            raise InputError(f"shard_data is True with update_freq {list(self.cfg.update_freq)}: allowed is [1]")
        if self.cfg.fix_batches_to_gpus:
            raise InputError("shard_data is True with fix_batches_to_gpus True: allowed is False")
        return folders

    def _check_dictionaries(self, first: str, own: str) -> None:
        for name in self.dictionary_names(self.cfg, first):
            if not os.path.exists(os.path.join(own, name)):
                raise InputError(f"it lacks {name}; allowed is the dictionary of {first}")
            if not filecmp.cmp(os.path.join(first, name), os.path.join(own, name), shallow=False):
                raise InputError(f"its {name} is another; allowed is the dictionary of {first}")
