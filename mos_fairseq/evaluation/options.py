"""How models are judged. Needs neither torch nor fairseq."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.evaluation.scoring import DEFAULT_TOKENIZER, TEXT_METRICS, TOKENIZERS
from mos_fairseq.transfer import check_dtype

OBJECTIVES = ("loss", *TEXT_METRICS)


@dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated.

    Args:
        objective: ``loss``: bits per target token, fairseq's ``nll_loss``; ``bleu``, ``chrf``: sacreBLEU's scores of a
            beam search.
        valid_subset: name of the set of sentence pairs.
        valid_samples: how many of them, drawn by ``seed``; None for all.
        max_tokens: of a batch.
        beam, max_len_a, max_len_b, remove_bpe: of the beam search, as fairseq calls them.
        sacrebleu_tokenizer: of ``bleu``, as fairseq calls it.
        transfer_dtype: to which the encoder's outputs are rounded on their way to the decoder, as they are when they
            are sent to another machine.

    Raises:
        InputError: a value out of range, or a tokenizer for what is no BLEU.
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
                f"sacrebleu_tokenizer is {self.sacrebleu_tokenizer}: it belongs to bleu, and {self.objective} is scored"
            )

    def identity(self) -> dict[str, Any]:
        """What tells these options from others, the same as before the options that are younger came."""
        found = asdict(self)
        if self.sacrebleu_tokenizer == DEFAULT_TOKENIZER:
            del found["sacrebleu_tokenizer"]
        if self.transfer_dtype == "float32":  # as if nothing was sent
            del found["transfer_dtype"]
        return found
