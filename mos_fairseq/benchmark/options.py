"""Options of a comparison. Importing this module needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from mos_fairseq.device import check_device
from mos_fairseq.errors import at_least

FAMILIES = ("encoder_decoder",)  # whose search spaces it takes: it compares with fairseq's transformer
SUITES = ("train", "decode", "memory", "mixture", "search", "compile", "precision", "batches", "rank")


@dataclass(frozen=True)
class SpeedOptions:
    """Settings of a measurement.

    Args:
        vocab_size: entries of the joined dictionary.
        tokens: target tokens of a training batch, approximately.
        length: tokens of a sentence; in training, the longest; the shortest has three quarters of it.
        threads: torch's threads; None keeps torch's own choice.
        repeats: number of rounds that count.
        device: torch's name of the device; on a GPU, CUDA events measure the time.

    Raises:
        InputError: a value is out of range, or the device does not exist.
    """

    vocab_size: int = 8000
    tokens: int = 1024
    length: int = 30
    threads: int | None = None
    repeats: int = 10
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, low in {"vocab_size": 24, "tokens": 8, "length": 4, "threads": 1, "repeats": 2}.items():
            at_least(low, **{name: getattr(self, name)})
        check_device(self.device)
