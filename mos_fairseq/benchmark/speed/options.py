"""What is compared, and how. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from mos_fairseq.errors import InputError

SUITES = ("train", "decode", "memory", "mixture", "search", "compile")


@dataclass(frozen=True)
class SpeedOptions:
    """What is measured.

    Args:
        vocab_size: entries of the joined dictionary.
        tokens: target tokens of a training batch, about.
        length: tokens of a sentence; in training the longest, three quarters of it the shortest.
        threads: of torch; None leaves torch's own choice.
        repeats: rounds that count.

    Raises:
        InputError: a value is out of range.
    """

    vocab_size: int = 8000
    tokens: int = 1024
    length: int = 30
    threads: int | None = None
    repeats: int = 10

    def __post_init__(self) -> None:
        least = {"vocab_size": 24, "tokens": 8, "length": 4, "threads": 1, "repeats": 2}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise InputError(f"{name} is {value}: allowed are whole numbers from {low}")
