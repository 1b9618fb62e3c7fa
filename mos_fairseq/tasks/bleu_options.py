"""Checks of ``--eval-bleu``'s options before a training, which would otherwise fail at its first validation."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import fields
from typing import Any

from fairseq.data.data_utils import post_process
from fairseq.data.encoders import TOKENIZER_REGISTRY, build_tokenizer
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import GenerationConfig
from fairseq.tasks.translation import TranslationConfig

from mos_fairseq.errors import InputError

_KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_SYMBOLS = ("sentencepiece", "subword_nmt", "@@ ", "wordpiece", "letter", "silence", "_EOW", "none")


def check_bleu_options(cfg: TranslationConfig) -> None:
    """Raise InputError for a value with which ``--eval-bleu`` fails, or an option in it that has no effect."""
    arguments = _json_object("eval_bleu_args", cfg.eval_bleu_args)
    detokenizer = _json_object("eval_bleu_detok_args", cfg.eval_bleu_detok_args)
    if not cfg.eval_bleu:
        return
    _check_generation(arguments)
    _check_detokenizer(cfg.eval_bleu_detok, detokenizer)
    try:
        post_process("", cfg.eval_bleu_remove_bpe)
    except NotImplementedError:
        raise InputError(
            f"eval_bleu_remove_bpe is {cfg.eval_bleu_remove_bpe}: allowed is one of {', '.join(map(repr, _SYMBOLS))}"
        ) from None


def _json_object(name: str, text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f'{name} is {text}: allowed is a JSON object, as in \'{{"beam": 4, "lenpen": 0.6}}\'')
    return found


def _check_generation(arguments: dict[str, Any]) -> None:
    defaults = {option.name: option.default for option in fields(GenerationConfig)}
    for name, value in arguments.items():
        if name not in defaults:
            raise InputError(f"eval_bleu_args has {name}: allowed are {', '.join(sorted(defaults))}")
        kind = type(defaults[name])
        fits = isinstance(value, (float, int) if kind is float else kind) and isinstance(value, bool) == (kind is bool)
        if kind in _KINDS and not fits:
            raise InputError(f"eval_bleu_args has {name} {json.dumps(value)}: allowed is {_KINDS[kind]}")
    for name in ("beam", "max_len_b"):
        if arguments.get(name, 1) < 1:
            raise InputError(f"eval_bleu_args has {name} {arguments[name]}: allowed are whole numbers from 1 up")


def _check_detokenizer(name: str, arguments: dict[str, Any]) -> None:
    if name not in TOKENIZER_REGISTRY:
        raise InputError(f"eval_bleu_detok is {name}: allowed are {', '.join(sorted(TOKENIZER_REGISTRY))}")
    config = getattr(TOKENIZER_REGISTRY[name], "__dataclass", None)
    known = {option.name for option in fields(config or FairseqDataclass)} - {"_name"}
    for option in arguments:
        if option not in known:
            allowed = f"allowed are {', '.join(sorted(known))}" if known else "it takes none"
            raise InputError(f"eval_bleu_detok_args has {option}, no option of {name}: {allowed}")
    try:
        build_tokenizer(Namespace(tokenizer=name, **arguments))
    except (ImportError, LookupError) as error:  # nltk lacks its data
        raise InputError(f"eval_bleu_detok is {name}: {' '.join(str(error).split())}") from error
