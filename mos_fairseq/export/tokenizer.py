"""Write tokenizer files for Hugging Face's transformers that give fairseq's numbers of words."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_fairseq.errors import InputError
from mos_fairseq.files import read_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

MISSING = "format huggingface needs an extra: pip install 'mos-fairseq[huggingface]'"
"""The message if a package is not installed."""

BOS, PAD, EOS, UNK, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
_SCORE_OF_NONE = -1e4  # score of a word that is no piece: never the best


def save_tokenizer(
    words: Sequence[str], folder: str, source: str | None, max_length: int, translation: bool = False
) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into a folder.

    Args:
        words: words of fairseq's dictionary, in order.
        source: file of the tokenizer that split the text into words: a SentencePiece model, or a ``tokenizer.json`` of
            Hugging Face; None: words are separated by spaces.
        max_length: tokens of the longest sentence.
        translation: for translation, nothing is put before sentences, and there are no masks.

    Raises:
        InputError: tokenizers is not installed, or the file cannot be read or has another vocabulary.
    """
    try:
        from tokenizers import Tokenizer, processors
    except ImportError:
        raise InputError(MISSING) from None
    numbers = {word: number for number, word in enumerate(words)}
    special = [BOS, PAD, EOS, UNK] if translation else [BOS, PAD, EOS, UNK, MASK]
    if source is None:
        tokenizer = _spaces(numbers)
    elif source.endswith(".json"):
        tokenizer = Tokenizer.from_str(json.dumps(_renumbered(source, numbers, special)))
    else:
        tokenizer = _sentencepiece(source, words)
    tokenizer.add_special_tokens(special)
    # as in fairseq's tasks: masked_lm's <s>, the </s> of preprocessing, sentence_prediction's --separator-token 2
    start = "" if translation else f"{BOS} "
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start}$A {EOS}",
        pair=f"{start}$A {EOS} {EOS} $B {EOS}",
        special_tokens=[(BOS, numbers[BOS]), (EOS, numbers[EOS])],
    )
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    roles = {"bos": BOS, "eos": EOS, "unk": UNK, "pad": PAD}
    roles |= {} if translation else {"cls": BOS, "sep": EOS, "mask": MASK}
    config: dict[str, Any] = {f"{name}_token": token for name, token in roles.items()}
    # pad a list of sentences on the right, as fairseq does
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, "padding_side": "right"}
    config |= {"model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": False}
    (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _spaces(numbers: dict[str, int]) -> Tokenizer:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _sentencepiece(path: str, words: Sequence[str]) -> Tokenizer:
    """Return the tokenizer of a SentencePiece unigram model; other kinds are refused."""
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    try:
        from sentencepiece import sentencepiece_model_pb2

        pieces = SentencePieceProcessor(model_file=path)
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString(Path(path).read_bytes())
    except ImportError:
        raise InputError("tokenizer: reading SentencePiece models needs the package protobuf; install it") from None
    except (OSError, RuntimeError, ValueError):
        raise InputError(f"tokenizer {path}: it is no SentencePiece model") from None
    if proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM:
        raise InputError(f"tokenizer {path}: only SentencePiece models of type unigram are supported")
    for name, value, wanted in (
        ("remove_extra_whitespaces", proto.normalizer_spec.remove_extra_whitespaces, True),
        ("escape_whitespaces", proto.normalizer_spec.escape_whitespaces, True),
        ("treat_whitespace_as_suffix", proto.trainer_spec.treat_whitespace_as_suffix, False),
    ):
        if value != wanted:
            raise InputError(f"tokenizer {path}: its {name} is {value}, supported is {wanted}")
    scores = {pieces.IdToPiece(i): pieces.GetScore(i) for i in range(len(pieces)) if not pieces.IsControl(i)}
    if not any(word in scores for word in words[4:]):
        raise InputError(f"tokenizer {path}: none of its pieces is a word of the dictionary")
    _warn_of_missing(path, [piece for piece in scores if piece != pieces.IdToPiece(pieces.unk_id())], words)
    by_bytes = proto.trainer_spec.byte_fallback
    scored = [(word, scores.get(word, _SCORE_OF_NONE)) for word in words]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=3, byte_fallback=by_bytes))
    steps = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    if charsmap := proto.normalizer_spec.precompiled_charsmap:
        steps.insert(0, normalizers.Precompiled(charsmap))
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "always" if proto.normalizer_spec.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoder]) if by_bytes else decoder
    return tokenizer


def _warn_of_missing(path: str, pieces: Sequence[str], words: Sequence[str]) -> None:
    """A piece that is no word of the dictionary is <unk> to fairseq; a tokenizer cannot hold it without a number."""
    if missing := sorted(set(pieces).difference(words)):
        names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        logger.warning(
            "tokenizer %s: %d of its %d pieces are no words of the dictionary (%s): where SentencePiece uses them, "
            "which is <unk> to fairseq, the written tokenizer splits the text otherwise",
            path,
            len(missing),
            len(pieces),
            names,
        )


def _renumbered(path: str, numbers: dict[str, int], special: Sequence[str]) -> dict[str, Any]:
    """Return a ``tokenizer.json`` of Hugging Face with fairseq's numbers of words."""
    text = read_text(path, "tokenizer")
    try:
        content = json.loads(text)
        model = content["model"]
        kind, vocabulary = model["type"], model["vocab"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"tokenizer {path}: it is no tokenizer.json of Hugging Face") from None
    if kind not in ("WordPiece", "BPE", "WordLevel"):
        raise InputError(f"tokenizer {path}: its model is {kind}, allowed are WordPiece, BPE and WordLevel")
    common = [word for word in vocabulary if word in numbers]
    if not common:
        raise InputError(f"tokenizer {path}: none of its words is in the dictionary")
    model["vocab"] = {word: numbers[word] for word in common} | {token: numbers[token] for token in special}
    if "merges" in model:
        pairs = (merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"])
        model["merges"] = [list(pair) for pair in pairs if all(p in numbers for p in (*pair, "".join(pair)))]
    model["unk_token"] = UNK
    return content | {"added_tokens": [], "post_processor": None, "padding": None, "truncation": None}
