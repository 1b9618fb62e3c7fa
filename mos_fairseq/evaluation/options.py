"""Options of an evaluation. Importing this module needs neither torch nor fairseq."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.evaluation.scoring import DEFAULT_TOKENIZER, TEXT_METRICS, TOKENIZERS
from mos_fairseq.transfer import check_dtype

OBJECTIVES = ("loss", "accuracy", *TEXT_METRICS)


@dataclass(frozen=True)
class EvaluationOptions:
    """Settings of an evaluation.

    Args:
        objective: ``loss``: bits per target token, fairseq's ``nll_loss``, or of a classifier bits per example;
            ``accuracy``: percentage of examples that it classifies correctly; ``bleu``, ``chrf``: sacreBLEU's scores
            of beam-search translations.
        valid_subset: name of the set.
        valid_samples: number of examples, drawn by ``seed``; None for all.
        max_tokens: largest number of tokens in a batch.
        beam, max_len_a, max_len_b, remove_bpe: fairseq's options of beam search.
        sacrebleu_tokenizer: fairseq's option, for ``bleu``.
        transfer_dtype: type to which the encoder's outputs are rounded before the decoder reads them, as if they were
            sent to another machine.

    Raises:
        InputError: a value is out of range, or a tokenizer is given for another score than BLEU.
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
    sacrebleu_tokenizer: str = DEFAULT_TOKENIZER
    transfer_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective is {self.objective}: allowed are {', '.join(OBJECTIVES)}")
        at_least(1, valid_samples=self.valid_samples, max_tokens=self.max_tokens, beam=self.beam)
        at_least(0.0, max_len_a=self.max_len_a, max_len_b=self.max_len_b)
        check_dtype(self.transfer_dtype)
        if self.sacrebleu_tokenizer not in TOKENIZERS:
            raise InputError(f"sacrebleu_tokenizer is {self.sacrebleu_tokenizer}: allowed are {', '.join(TOKENIZERS)}")
        if self.sacrebleu_tokenizer != DEFAULT_TOKENIZER and self.objective != "bleu":
            raise InputError(
                f"sacrebleu_tokenizer is {self.sacrebleu_tokenizer}: it belongs to bleu, objective is {self.objective}"
            )

    def identity(self) -> dict[str, Any]:
        """Return the options that identify an evaluation. Options of later versions are left out at their defaults, so
        that earlier fingerprints stay valid."""
        found = asdict(self)
        if self.sacrebleu_tokenizer == DEFAULT_TOKENIZER:
            del found["sacrebleu_tokenizer"]
        if self.transfer_dtype == "float32":  # float32 changes no value
            del found["transfer_dtype"]
        return found
