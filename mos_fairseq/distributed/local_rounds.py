"""Local rounds: processes train on their own, and average their parameters now and then (FedAvg, arXiv 1602.05629; of
supernets FedSup, arXiv 2206.01366)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from mos_fairseq.distributed.supernet_data_parallel import SupernetDataParallel
from mos_fairseq.errors import InputError

AVERAGES = ("holders", "all")
MOMENTS = ("average", "keep", "reset")


@dataclass(frozen=True)
class LocalRounds:
    """A round has ``updates`` updates; ``average`` is one of AVERAGES, ``moments`` of MOMENTS."""

    updates: int
    average: str = "holders"
    moments: str = "average"


@dataclass(frozen=True)
class RoundLog:
    """One round: its updates, the number of averaged and of trained tensors, and the bytes that each process sent."""

    updates: int
    averaged: int
    tensors: int
    sent: int


class LocalDataParallel(SupernetDataParallel):
    """Data-parallel training without exchange of gradients. Each process steps by its own mini-batches' gradients,
    divided by its own tokens, and :meth:`end_round` averages the touched parameters.

    A process touches a whole tensor when the tensor has a gradient in an update, even if only a slice was active. With
    ``holders`` a tensor becomes the mean over the processes that touched it in this round, weighted by the tokens of
    the updates in which they touched it. With ``all`` it is the mean over all processes, weighted by their tokens. A
    tensor that no process touched is unchanged. Learning rates, updates and rounds are common to all processes;
    clipping is not.

    Args:
        rounds: how they average.
    """

    def __init__(
        self,
        module: nn.Module,
        process_group: torch.distributed.ProcessGroup,
        rounds: LocalRounds,
        bucket_mb: float = 25,
    ) -> None:
        super().__init__(module, process_group, bucket_mb)
        self.rounds = rounds
        self._own = 0.0  # tokens of this process in this update
        self._begin_round()

    def _begin_round(self) -> None:
        self.open_updates = 0
        self._tokens = 0.0
        self._touched = [0.0] * len(self._trained())

    def note_tokens(self, tokens: float) -> None:
        """Count a mini-batch's tokens of this process, before :meth:`all_reduce_grads`. fairseq divides by them."""
        self._own += float(tokens)

    @torch.no_grad()
    def all_reduce_grads(self) -> None:
        """Scale gradients so that the trainer, which divides by the mean of all processes' tokens, divides them by this
        process's. One number is exchanged. Gradients of an update without tokens are left out."""
        params = self._trained()
        whole = torch.tensor(self._own, dtype=torch.float64, device=params[0].device)
        torch.distributed.all_reduce(whole, group=self.process_group)
        scale = whole.item() / self._size() / self._own if self._own else 0.0
        for index, p in enumerate(params):
            if p.grad is not None and self._own:
                p.grad.mul_(scale)
                self._touched[index] += self._own
            else:
                p.grad = None
        self._tokens += self._own
        self._own = 0.0
        self.open_updates += 1

    @torch.no_grad()
    def end_round(self, optimizer: torch.optim.Optimizer) -> RoundLog:
        """Average parameters and, as ``rounds`` says, the optimizer's moments; all ranks have to call it.

        Raises:
            InputError: the optimizer keeps what cannot be averaged.
        """
        params = self._trained()
        told = torch.tensor([*self._touched, self._tokens], dtype=torch.float64, device=params[0].device)
        table = [torch.zeros_like(told) for _ in range(self._size())]
        torch.distributed.all_gather(table, told, group=self.process_group)
        tokens = torch.stack(table).cpu()  # [ranks, tensors + 1]
        weights = tokens[:, :-1] if self.rounds.average == "holders" else tokens[:, -1:].expand(-1, len(params))
        mine = weights[torch.distributed.get_rank(self.process_group)] / weights.sum(0)
        somewhere = tokens[:, :-1].sum(0) > 0
        shares = {params[i]: mine[i].item() for i in somewhere.nonzero().flatten().tolist()}
        sent = 8 * (told.numel() + self.open_updates)  # tokens, of the round and of each update
        sent += self._average(list(shares.items()))
        if self.rounds.moments == "average":
            sent += self._average_moments(optimizer, shares)
        elif self.rounds.moments == "reset":
            optimizer.state.clear()
        log = RoundLog(self.open_updates, len(shares), len(params), sent)
        self._begin_round()
        return log

    @torch.no_grad()
    def average_moments(self, optimizer: torch.optim.Optimizer) -> int:
        """Replace all moments by their unweighted mean over the ranks, which all have to call it. Return the bytes that
        each of them sent. Raises as :meth:`end_round`."""
        return self._average_moments(optimizer, dict.fromkeys(self._trained(), 1 / self._size()))

    def _average_moments(self, optimizer: torch.optim.Optimizer, shares: dict[nn.Parameter, float]) -> int:
        _share_steps(optimizer, self._trained(), self.process_group)
        return self._average(
            [
                (kept, share)
                for p, share in shares.items()
                for _, kept in sorted(optimizer.state.get(p, {}).items())
                if isinstance(kept, Tensor) and kept.shape == p.shape and p.dim()
            ]
        )

    def _average(self, parts: list[tuple[Tensor, float]]) -> int:
        """Replace each tensor by the sum over ranks of the tensor times the rank's share. Return the bytes sent."""
        share = {id(tensor): factor for tensor, factor in parts}
        tensors = [tensor for tensor, _ in parts]
        self._sum(tensors, lambda bucket: torch.cat([tensor.reshape(-1) * share[id(tensor)] for tensor in bucket]))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _share_steps(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], group: Any) -> None:
    """Give every process moments of the same parameters, zeros where it had none, and the largest count of steps."""
    mine = {
        index: {key: _told(kept, p) for key, kept in optimizer.state[p].items() if kept is not None}
        for index, p in enumerate(params)
        if optimizer.state.get(p)
    }
    found: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(found, mine, group=group)
    for index, p in enumerate(params):
        states = [state[index] for state in found if index in state]
        for key, (kind, _) in (item for state in states for item in state.items()):
            if kind == "other":
                raise InputError(f"local_moments: the optimizer keeps {key}, which has no average; allowed is reset")
            kept = optimizer.state[p].get(key)
            if kind == "moment":
                optimizer.state[p][key] = torch.zeros_like(p) if kept is None else kept
            else:
                most = max(state[key][1] for state in states if key in state)
                optimizer.state[p][key] = int(most) if kind == "count" else torch.tensor(most, device=p.device)


def _told(kept: Any, p: Tensor) -> tuple[str, float]:
    if isinstance(kept, Tensor) and kept.shape == p.shape and p.dim():
        return "moment", 0.0
    if isinstance(kept, Tensor) and kept.numel() == 1 and not kept.dim():
        return "step", float(kept)
    return ("count", float(kept)) if isinstance(kept, int) else ("other", 0.0)
