"""Report which subnets have NaN or infinite losses, without making the host wait for a GPU."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from mos_fairseq.search_space import Subnet

logger = logging.getLogger(__name__)


class BadLosses:
    """Warn of losses that are not finite. fairseq then decides when it sees the gradients: it stops (fp32), or skips
    the update and lowers the loss scale (``--amp``, ``--fp16``).

    Losses on a GPU are copied to the host asynchronously, and :meth:`tell` checks those that have arrived. In every
    update fairseq waits for the norm of the gradients, by when the update's losses have arrived.
    """

    def __init__(self) -> None:
        self._on_the_way: deque[tuple[int, list[tuple[str, Subnet]], Tensor, torch.cuda.Event | None]] = deque()

    def watch(self, update_num: int, subnets: Sequence[tuple[str, Subnet]], losses: Sequence[Tensor]) -> None:
        """Check the losses of a mini-batch, one for each of the subnets, as soon as that costs no time."""
        values, event = torch.stack(list(losses)), None
        if values.is_cuda:
            values, event = values.to("cpu", non_blocking=True), torch.cuda.Event()
            event.record()
        self._on_the_way.append((update_num, list(subnets), values, event))
        self.tell()

    def tell(self) -> None:
        """Warn of bad losses among those that have arrived."""
        while self._on_the_way and ((event := self._on_the_way[0][-1]) is None or event.query()):
            update_num, subnets, values, _ = self._on_the_way.popleft()
            for (name, subnet), value in zip(subnets, values.tolist(), strict=True):
                if not math.isfinite(value):
                    text = "update %d: the loss of subnet %s is %s: %s"
                    logger.warning(text, update_num + 1, name, value, subnet.summary())
