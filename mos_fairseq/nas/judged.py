"""Losses of subnets on disk, so that no search of the same checkpoint and data judges one again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from mos_fairseq.errors import InputError
from mos_fairseq.jsonl import JsonlWriter, read_jsonl
from mos_fairseq.nas.evaluator import SubnetEvaluator
from mos_fairseq.nas.workers import Workers
from mos_fairseq.search_space import Subnet

_DIGITS = 6  # what a sum over a set keeps in float32, whatever the number of threads


class JudgedSubnets:
    """Judges subnets, and keeps the losses by canonical key.

    Args:
        path: file of what was judged before; it grows.
        workers: who helps the evaluator; None for no one.

    Raises:
        InputError: the file is of another kind, or another search is writing it.
    """

    def __init__(self, path: Path, evaluator: SubnetEvaluator, workers: Workers | None = None) -> None:
        self.evaluator, self.workers = evaluator, workers
        self.bar: tqdm | None = None  # once there is something to show
        rows = read_jsonl(path) if path.exists() else []
        try:
            self.known = {str(row["key"]): float(row["loss"]) for row in rows}
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(f"{path}: not a file of judged subnets; remove it to judge them again") from None
        self.writer = JsonlWriter(path)

    def evaluate(self, subnets: Sequence[Subnet]) -> list[float]:
        """Losses (of BLEU, the negative), each written as soon as it is known."""
        sign = -1.0 if self.evaluator.options.objective == "bleu" else 1.0
        losses = dict.fromkeys(range(len(subnets)), 0.0)
        if self.bar is None:
            self.bar = tqdm(unit="subnet", desc="judging")
        for index, value in self._values(subnets):
            losses[index] = round(sign * value, _DIGITS)
            self.writer.append({"key": subnets[index].key, "loss": losses[index]})
            self.bar.update()
        return list(losses.values())

    def _values(self, subnets: Sequence[Subnet]) -> Iterator[tuple[int, float]]:
        if self.workers is not None:
            return self.workers.evaluate_all(subnets)
        return enumerate(map(self.evaluator.evaluate, subnets))

    def show(self, generation: int, loss: float) -> None:
        """Tell the progress bar how far the search is."""
        if self.bar is not None:
            self.bar.set_postfix(generation=generation, best=f"{abs(loss):.4g}")

    def __enter__(self) -> JudgedSubnets:
        return self

    def __exit__(self, *exception: object) -> None:
        self.writer.close()
        if self.bar is not None:
            self.bar.close()
