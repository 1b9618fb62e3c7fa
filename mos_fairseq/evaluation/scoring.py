"""sacreBLEU's scores of translations, by name: which there are, and whether one can mean anything for a language."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import islice

from sacrebleu.metrics import BLEU, CHRF

from mos_fairseq.errors import InputError

TEXT_METRICS = {"bleu": "BLEU", "chrf": "chrF"}
"""Scores of translations, higher when better, and what they are called."""

TOKENIZERS = tuple(BLEU.TOKENIZERS)
DEFAULT_TOKENIZER = BLEU.TOKENIZER_DEFAULT

# of scripts that are written without spaces between words: how Unicode's names of their characters begin
_WITHOUT_SPACES = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
_LONG_WORD = 8  # characters: words of these languages have 2 (Chinese) to 6 (Burmese) on average
_LINES = 500  # are enough to tell a language


def text_metric(name: str, tokenizer: str = DEFAULT_TOKENIZER) -> BLEU | CHRF:
    """sacreBLEU's metric ``name`` of ``TEXT_METRICS`` with its own settings; ``tokenizer`` is BLEU's.

    Raises:
        InputError: a package or a file that the tokenizer needs is missing.
    """
    if name == "chrf":
        return CHRF()
    try:
        return BLEU(tokenize=tokenizer)
    except (ImportError, RuntimeError, OSError) as error:  # OSError: it could not be downloaded
        reason = " ".join(str(error).split())
        raise InputError(f"sacrebleu_tokenizer is {tokenizer}: sacreBLEU cannot use it here ({reason})") from None


def signature(metric: BLEU | CHRF) -> str:
    """sacreBLEU's, which tells scores of other settings apart, for one reference a sentence."""
    metric.corpus_score(["a"], [["a"]])  # it counts the references of what it scored last
    return str(metric.get_signature())


def warning_of_tokens(metric: BLEU | CHRF, references: Sequence[str]) -> str | None:
    """What is wrong where BLEU's tokenizer leaves sentences of a language without spaces whole: nearly no word is found
    in any translation, and what scores are left is noise."""
    if not isinstance(metric, BLEU):
        return None
    tokens = [token for line in islice(references, _LINES) for token in metric.tokenizer(line).split()]
    whole = [token for token in tokens if any(map(_is_without_spaces, token))]
    letters, characters = (sum(map(len, found)) for found in (whole, tokens))
    if letters <= characters / 2 or letters <= _LONG_WORD * len(whole):
        return None
    return (
        f"BLEU with the tokenizer {metric.tokenizer.signature()} finds words of {letters / len(whole):.0f} characters "
        "in these references, whose language has no spaces: such scores are noise; give --sacrebleu-tokenizer (zh, "
        "ja-mecab, flores200 or char), or score by chrf"
    )


def _is_without_spaces(character: str) -> bool:
    return character > "\u0dff" and unicodedata.name(character, "").startswith(_WITHOUT_SPACES)
