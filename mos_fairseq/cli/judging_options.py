"""The options by which ``mos-gap`` and ``mos-finetune`` score models, and the judge that they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mos_fairseq.cli.search_options import add_tokenizer_option
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.options import EvaluationOptions
from mos_fairseq.evaluation.scoring import TEXT_METRICS

if TYPE_CHECKING:
    from mos_fairseq.evaluation.judge import Judge


_OF_TRANSLATIONS = ("beam", "max_len_a", "max_len_b", "remove_bpe", "reference")


def add_judging_options(parser: argparse.ArgumentParser, subset: str) -> None:
    """Add the options; ``subset`` is the default set to score on."""
    defaults = EvaluationOptions()
    parser.add_argument("--gen-subset", default=subset, metavar="NAME", help=f"set to score on (default: {subset})")
    parser.add_argument("--reference", metavar="FILE", help="its raw target text (default: the binarised text, joined)")
    parser.add_argument("--valid-samples", type=int, metavar="N", help="score on N examples of the set (default: all)")
    for name, kind in (("max_tokens", int), ("beam", int), ("max_len_a", float), ("max_len_b", int)):
        option, default = f"--{name.replace('_', '-')}", getattr(defaults, name)
        parser.add_argument(option, type=kind, default=default, metavar="N", help="default: %(default)s")
    parser.add_argument("--remove-bpe", nargs="?", const="@@ ", metavar="SYMBOL", help="as fairseq's option")
    text = (
        "sacreBLEU's score of translations; or loss, with its perplexity, the only metric of masked language models, "
        "which do not translate; all models then predict the same words (default: %(default)s)"
    )
    parser.add_argument("--metric", choices=(*TEXT_METRICS, "loss"), default="bleu", help=text)
    add_tokenizer_option(parser)
    parser.add_argument("--device", help="device to score on, as in cuda:0 (default: the GPU, otherwise the CPU)")


def judged_how(args: argparse.Namespace) -> EvaluationOptions:
    """Return the options. Raises InputError if a number is out of range, or an option has no effect with the metric."""
    defaults = EvaluationOptions()
    for name in _OF_TRANSLATIONS if args.metric == "loss" else ():
        if (value := getattr(args, name)) != getattr(defaults, name, None):
            raise InputError(f"{name} is {value}: it has no effect with metric loss")
    names = ("max_tokens", "beam", "max_len_a", "max_len_b", "remove_bpe", "valid_samples", "sacrebleu_tokenizer")
    return EvaluationOptions(args.metric, args.gen_subset, **{name: getattr(args, name) for name in names})


def judge_of(args: argparse.Namespace, options: EvaluationOptions) -> Judge:
    """Return the judge; imports torch. Raises InputError if the reference does not exist or does not fit."""
    import torch

    from mos_fairseq.evaluation.judge import Judge

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Judge(args.data, options, device, Path(args.reference) if args.reference else None)
