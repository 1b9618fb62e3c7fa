"""How models are judged. Needs neither torch nor fairseq."""

from __future__ import annotations

from dataclasses import dataclass

from mos_fairseq.errors import InputError

OBJECTIVES = ("loss", "bleu")


@dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated.

    Args:
        objective: ``loss``: bits per target token, fairseq's ``nll_loss``; ``bleu``: sacreBLEU of a beam search.
        valid_subset: name of the set of sentence pairs.
        valid_samples: how many of them, drawn by ``seed``; None for all.
        max_tokens: of a batch.
        beam, max_len_a, max_len_b, remove_bpe: of the beam search, as fairseq calls them.

    Raises:
        InputError: a value out of range.
    """

    objective: str = "loss"
    valid_subset: str = "valid"
    valid_samples: int | None = None
    max_tokens: int = 4000
    beam: int = 4
    max_len_a: float = 1.2
    max_len_b: int = 10
    remove_bpe: str | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective is {self.objective}: allowed are {', '.join(OBJECTIVES)}")
        for name in ("valid_samples", "max_tokens", "beam"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: allowed are whole numbers from 1")
