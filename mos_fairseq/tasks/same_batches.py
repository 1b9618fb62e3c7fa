"""Keep the mini-batches of a run when it is resumed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from fairseq.tasks import FairseqTask


def same_batches(get_batch_iterator: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a task's ``get_batch_iterator`` so that a resumed run keeps its mini-batches.

    fairseq groups sentences into mini-batches once, with a seed that includes the epoch in which the run started. A run
    resumed in the second epoch or later would form other groups. These match neither the uninterrupted run nor the
    position within the epoch in the checkpoint. The iterator gets its epoch from the checkpoint afterwards.
    """
    signature = inspect.signature(FairseqTask.get_batch_iterator)

    @functools.wraps(get_batch_iterator)
    def with_epoch_one(self: FairseqTask, *args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(self, *args, **kwargs).arguments)
        del given["self"]
        epoch = given.get("epoch", 1)
        made_every_epoch = given.get("disable_iterator_cache") or given.get("update_epoch_batch_itr")
        if not made_every_epoch and self.can_reuse_epoch_itr(given["dataset"]):
            given["epoch"] = 1
        iterator = get_batch_iterator(self, **given)
        given["dataset"].set_epoch(epoch)  # for a masked set, the masks, also in a resumed epoch
        return iterator

    return with_epoch_one
