"""sacreBLEU's scores of translations by name, and a check whether a score is meaningful for a language."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import islice

from sacrebleu.metrics import BLEU, CHRF

from mos_fairseq.errors import InputError

TEXT_METRICS = {"bleu": "BLEU", "chrf": "chrF"}
"""Scores of translations by name, with their usual spelling; higher is better."""

TOKENIZERS = tuple(BLEU.TOKENIZERS)
DEFAULT_TOKENIZER = BLEU.TOKENIZER_DEFAULT

# scripts written without spaces between words, by the beginning of their characters' Unicode names
_WITHOUT_SPACES = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
_LONG_WORD = 8  # characters; words of these languages average 2 (Chinese) to 6 (Burmese)
_LINES = 500  # enough to identify a language


def text_metric(name: str, tokenizer: str = DEFAULT_TOKENIZER) -> BLEU | CHRF:
    """Return sacreBLEU's metric ``name`` of ``TEXT_METRICS`` with its default settings; ``tokenizer`` is for BLEU.

    Raises:
        InputError: a package or a file that the tokenizer needs is missing.
    """
    if name == "chrf":
        return CHRF()
    try:
        return BLEU(tokenize=tokenizer)
    except (ImportError, RuntimeError, OSError) as error:  # OSError: a download failed
        reason = " ".join(str(error).split())
        raise InputError(f"sacrebleu_tokenizer is {tokenizer}: sacreBLEU cannot use it here ({reason})") from None


def signature(metric: BLEU | CHRF) -> str:
    """Return sacreBLEU's signature, which identifies the settings of a score, for one reference a sentence."""
    metric.corpus_score(["a"], [["a"]])  # the signature holds the number of references scored last
    return str(metric.get_signature())


def warning_of_tokens(metric: BLEU | CHRF, references: Sequence[str]) -> str | None:
    """Return a warning if BLEU's tokenizer does not split sentences of a language without spaces. Then hardly any word
    of a translation matches, and the scores are noise."""
    if not isinstance(metric, BLEU):
        return None
    tokens = [token for line in islice(references, _LINES) for token in metric.tokenizer(line).split()]
    whole = [token for token in tokens if any(map(_is_without_spaces, token))]
    letters, characters = (sum(map(len, found)) for found in (whole, tokens))
    if letters <= characters / 2 or letters <= _LONG_WORD * len(whole):
        return None
    return (
        f"BLEU with the tokenizer {metric.tokenizer.signature()} finds words of {letters / len(whole):.0f} characters "
        "in these references, but their language has no spaces; such scores are noise: give --sacrebleu-tokenizer (zh, "
        "ja-mecab, flores200 or char), or score by chrf"
    )


def _is_without_spaces(character: str) -> bool:
    return character > "\u0dff" and unicodedata.name(character, "").startswith(_WITHOUT_SPACES)
