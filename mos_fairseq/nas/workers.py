"""Evaluations on several processes and machines: tasks are in torch's key-value store, and idle workers take them.

There are no collective operations. So a lost or hanging worker costs only time: its task is repeated.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.multiprocessing
from torch.distributed import DistError, PrefixStore, Store, TCPStore, rendezvous

from mos_fairseq.errors import InputError
from mos_fairseq.processes import end_with
from mos_fairseq.search_space import Subnet

if TYPE_CHECKING:
    from mos_fairseq.evaluation.evaluator import SubnetEvaluator

logger = logging.getLogger(__name__)

Evaluate = Callable[[Subnet], float]
_POLL = 0.01  # seconds; after a time-out in the store's own wait, its connection is unusable
_GRACE = 5.0  # seconds for a worker to end


class Workers:
    """The side that distributes work, and does its share.

    Args:
        store: reaches all workers (see :func:`serve`).
        fingerprint: identifies the evaluation; a worker with another fingerprint is refused.
        evaluate: this process's evaluation.
        patience: seconds, or ten of its own evaluations if longer, after which a worker's task is done here.
    """

    def __init__(self, store: Store, fingerprint: str, evaluate: Evaluate, patience: float = 60.0) -> None:
        self.store, self.evaluate, self.patience = store, evaluate, patience
        store.set("fingerprint", fingerprint)
        self._posted = 0
        self._taken: int | None = None  # a number that this process has drawn; its task may not exist yet

    def evaluate_all(self, subnets: Sequence[Subnet]) -> Iterator[tuple[int, float]]:
        """Yield (position in ``subnets``, value) of each, as they are found.

        Raises:
            InputError: an evaluation raised it, here or in a worker.
        """
        first = self._posted
        for offset, subnet in enumerate(subnets):
            self.store.set(f"task/{first + offset}", subnet.key)
        self._posted += len(subnets)
        pending = dict(enumerate(subnets, start=first))
        while pending:
            number = self._next_number(pending)
            if number is not None:
                begin = time.monotonic()
                yield number - first, self.evaluate(pending.pop(number))
                self.patience = max(self.patience, 10 * (time.monotonic() - begin))
            for done in [number for number in pending if self.store.check([f"result/{number}"])]:
                yield done - first, _value(self.store.get(f"result/{done}"))
                del pending[done]

    def _next_number(self, pending: dict[int, Subnet]) -> int | None:
        """Return the number of a task to do here; or None, after a while, when a worker has finished one."""
        if self._taken is None:
            self._taken = self.store.add("taken", 1) - 1
        if self._taken < self._posted:
            number, self._taken = self._taken, None
            return number if number in pending else None
        return self._wait_for(min(pending))

    def _wait_for(self, number: int) -> int | None:
        deadline = time.monotonic() + self.patience
        while not self.store.check([f"result/{number}"]):
            if time.monotonic() > deadline:
                logger.warning("no answer from a worker: judging its subnet here")
                return number
            time.sleep(_POLL)
        return None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        """Release the workers."""
        self.store.set("stop", "1")


def _value(answer: bytes) -> float:
    content = json.loads(answer)
    if "error" in content:
        raise InputError(content["error"])
    return content["value"]


def serve(store: Store, fingerprint: str, evaluate: Evaluate) -> None:
    """Do tasks until there are no more, or the other side has ended.

    Raises:
        InputError: the other side has another evaluation.
    """
    try:
        while not store.check(["fingerprint"]):
            time.sleep(_POLL)
        if (wanted := store.get("fingerprint").decode()) != fingerprint:
            raise InputError(f"worker: its checkpoint, data or options differ ({fingerprint}, not {wanted})")
        while True:
            number = store.add("taken", 1) - 1
            while not store.check([f"task/{number}"]):
                if store.check(["stop"]):
                    return
                time.sleep(_POLL)
            subnet = Subnet.from_dict(json.loads(store.get(f"task/{number}")))
            try:
                answer: dict[str, Any] = {"value": evaluate(subnet)}
            except InputError as error:
                answer = {"error": str(error)}
            store.set(f"result/{number}", json.dumps(answer))
    except DistError:  # the other side has ended
        return


def launched() -> tuple[Store, int, int] | None:
    """Return (store, rank, number of processes) if torchrun started this program several times, otherwise None."""
    if int(os.environ.get("WORLD_SIZE", 1)) < 2 or "MASTER_ADDR" not in os.environ:
        return None
    store, rank, size = next(iter(rendezvous("env://")))
    return PrefixStore("mos-search", store), rank, size


@contextmanager
def started(number: int, prepare: Callable[[int], SubnetEvaluator], threads: int) -> Iterator[Store]:
    """Start ``number`` worker processes on this machine, which end with the context, and return their store.

    Args:
        prepare: makes a worker's evaluator, called there with its rank, from 1; must be picklable.
        threads: torch's threads in each.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = torch.multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_work, args=(store.port, rank, prepare, threads), daemon=True)
        for rank in range(1, number + 1)
    ]
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # workers inherit it: this process reports Ctrl-C
    for process in processes:
        process.start()
    signal.signal(signal.SIGINT, handler)
    try:
        yield store
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(_GRACE)
            process.kill()  # a hanging process ignores the first signal
            process.join()


def _work(port: int, rank: int, prepare: Callable[[int], SubnetEvaluator], threads: int) -> None:
    """Run one worker process. It ends with its parent: without one, it would look for the store for minutes."""
    parent = multiprocessing.parent_process()
    if parent is None or not end_with(parent.pid):
        return
    torch.set_num_threads(threads)
    logging.disable(logging.INFO)
    evaluator = prepare(rank)
    serve(TCPStore("127.0.0.1", port), evaluator.fingerprint(), evaluator.evaluate)
