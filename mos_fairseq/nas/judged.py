"""Losses of subnets on disk, so that no search of the same checkpoint and data judges a subnet again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import SubnetEvaluator
from mos_fairseq.jsonl import SharedJsonl
from mos_fairseq.nas.workers import Workers
from mos_fairseq.progress import progress
from mos_fairseq.search_space import Subnet

if TYPE_CHECKING:
    from tqdm import tqdm

DIGITS = 6  # digits that a sum over a set keeps in float32 with any number of threads


class JudgedSubnets:
    """Judge subnets, and keep the losses by canonical key. Several searches may share the file at the same time.

    Args:
        path: file of earlier judgements; it grows.
        workers: processes that help the evaluator; None for none.
        total: largest number of subnets that the search requests, if known; for the progress bar.

    Raises:
        InputError: the file has another format, or cannot be written.
    """

    def __init__(
        self, path: Path, evaluator: SubnetEvaluator, workers: Workers | None = None, total: int | None = None
    ) -> None:
        self.evaluator, self.workers, self.total = evaluator, workers, total
        self.bar: tqdm | None = None  # made once there is something to show
        self.path, self.file = path, SharedJsonl(path)
        self.known: dict[str, float] = {}
        self._take(self.file.read())

    def _take(self, rows: list[dict[str, Any]]) -> None:
        try:
            self.known |= {str(row["key"]): float(row["loss"]) for row in rows}
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(f"{self.path}: not a file of judged subnets; remove it to judge them again") from None

    def evaluate(self, subnets: Sequence[Subnet], before: int = 0) -> list[float]:
        """Return losses (for BLEU and chrF, the negative score), each written as soon as it is read.

        ``before``: number of other subnets that the search has requested so far, including earlier runs.
        """
        sign = 1.0 if self.evaluator.options.objective == "loss" else -1.0
        self._take(self.file.read())
        new = [subnet for subnet in subnets if subnet.key not in self.known]  # new to all searches
        if self.bar is None:
            self.bar = progress(unit="subnet", desc="judging", total=self.total, smoothing=0)
        self._skip_to(before + len(subnets) - len(new))
        for index, value in self._values(new):
            row = {"key": new[index].key, "loss": round(sign * value, DIGITS)}
            if row["key"] not in self.known:  # otherwise another search was first
                self._take([row, *self.file.append(row, "key")])
            self.bar.update()
        self._skip_to(before + len(subnets))
        return [self.known[subnet.key] for subnet in subnets]

    def _skip_to(self, count: int) -> None:
        """Advance the bar by work that took no time, without counting it in its rate."""
        if self.bar is not None:
            self.bar.initial += count - self.bar.n
            self.bar.n = count
            self.bar.refresh()

    def _values(self, subnets: Sequence[Subnet]) -> Iterator[tuple[int, float]]:
        if self.workers is not None:
            return self.workers.evaluate_all(subnets)
        return self._values_here(subnets)

    def _values_here(self, subnets: Sequence[Subnet]) -> Iterator[tuple[int, float]]:
        step = self.evaluator.at_once
        for first in range(0, len(subnets), step):
            part = range(first, min(first + step, len(subnets)))
            # another search may have judged some meanwhile
            new = [index for index in part if subnets[index].key not in self.known]
            yield from zip(new, self.evaluator.evaluate_all([subnets[index] for index in new]), strict=True)

    def show(self, generation: int, loss: float) -> None:
        """Show the progress of the search on the bar."""
        if self.bar is not None:
            self.bar.set_postfix(generation=generation, best=f"{abs(loss):.4g}")

    def __enter__(self) -> JudgedSubnets:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self.file.close()
        if self.bar is not None:
            if kind is None and self.total is not None:
                self.bar.total = self.bar.n  # the search may have needed fewer
            self.bar.close()
