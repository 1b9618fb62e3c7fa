"""Average the gradients of a supernet over processes, once per update, and only those that exist."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
import torch.distributed
from torch import Tensor, nn

_IN_FLIGHT = 2  # buckets: one travels while the next is packed


class SupernetDataParallel(nn.Module):
    """Data parallelism for a module of which every backward pass touches another part.

    torch's ``DistributedDataParallel`` reduces what the *last* backward of an update touches, when it touches it. An
    update of the sandwich rule has a backward for each subnet, the smallest last, so that it would either exchange
    everything once per subnet or, with ``no_sync`` around all but the last, leave out what only the others touched.
    fairseq's ``legacy_ddp`` exchanges everything once, and makes zeros of gradients that do not exist: Adam then moves
    layers that were in no subnet, by their momentum.

    Here gradients add up locally over all subnets and micro-batches, and :meth:`all_reduce_grads`, which fairseq's
    trainer calls once per update before it looks at them, averages those that exist on some rank: one small exchange
    says which (ranks may have trained different subnets), then flat buckets travel while the next are packed. The
    bytes sent do not grow with the number of subnets, nothing is sent for absent layers, and no copy of all gradients
    is held. What torch's wrapper has over it is sending during the backward pass; with several backward passes little
    of a gradient is final before the last of them is.

    Args:
        module: the supernet, on its device; its parameters and buffers become those of rank 0.
        process_group: of torch.distributed.
        bucket_mb: size of a bucket in MiB.
    """

    def __init__(self, module: nn.Module, process_group: torch.distributed.ProcessGroup, bucket_mb: float = 25) -> None:
        super().__init__()
        self.module, self.process_group = module, process_group
        self._bucket_bytes = int(bucket_mb * 2**20)
        first = torch.distributed.get_global_rank(process_group, 0)
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                torch.distributed.broadcast(tensor.data, first, group=process_group)

    def forward(self, *inputs, **kwargs):
        """As the module's."""
        return self.module(*inputs, **kwargs)

    @torch.no_grad()
    def all_reduce_grads(self) -> None:
        """Replace each gradient by its mean over the ranks (a missing one counts as zeros there; where it is missing
        on all ranks it stays missing). All ranks have to call it."""
        params = self._trained()
        if not params:
            return
        exists = torch.tensor([p.grad is not None for p in params], dtype=torch.uint8, device=params[0].device)
        torch.distributed.all_reduce(exists, torch.distributed.ReduceOp.MAX, group=self.process_group)
        grads = []
        for p, somewhere in zip(params, exists.tolist(), strict=True):
            if somewhere:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                grads.append(p.grad)
        size = self._size()
        # divided before the sum, as fairseq does: half precision might overflow otherwise
        self._sum(grads, lambda bucket: torch.cat([grad.reshape(-1) for grad in bucket]).div_(size))

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.module.parameters() if p.requires_grad]

    def _size(self) -> int:
        return torch.distributed.get_world_size(self.process_group)

    def _sum(self, tensors: list[Tensor], pack: Callable[[list[Tensor]], Tensor]) -> None:
        """Replace ``tensors`` by the sum over the ranks of what ``pack`` makes of a bucket of them, flat."""
        pending: deque = deque()
        for bucket in _buckets(tensors, self._bucket_bytes):
            flat = pack(bucket)
            work = torch.distributed.all_reduce(flat, group=self.process_group, async_op=True)
            pending.append((work, flat, bucket))
            if len(pending) == _IN_FLIGHT:
                _unpack(*pending.popleft())
        while pending:
            _unpack(*pending.popleft())


def _buckets(grads: list[Tensor], max_bytes: int) -> Iterator[list[Tensor]]:
    """Lists of one type and device, in order; the same on every rank."""
    groups: dict[tuple, list[Tensor]] = {}
    for grad in grads:
        groups.setdefault((grad.dtype, grad.device), []).append(grad)
    for group in groups.values():
        bucket: list[Tensor] = []
        held = 0
        for grad in group:
            size = grad.numel() * grad.element_size()
            if bucket and held + size > max_bytes:
                yield bucket
                bucket, held = [], 0
            bucket.append(grad)
            held += size
        yield bucket


def _unpack(work: torch.distributed.Work, flat: Tensor, bucket: list[Tensor]) -> None:
    work.wait()
    parts = flat.split([grad.numel() for grad in bucket])
    torch._foreach_copy_(bucket, [part.view_as(grad) for part, grad in zip(parts, bucket, strict=True)])
