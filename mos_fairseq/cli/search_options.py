"""The command line of ``mos-search``, and the options that it makes of its arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mos_fairseq.cli import command_parser
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.evaluation.options import OBJECTIVES, EvaluationOptions
from mos_fairseq.evaluation.scoring import DEFAULT_TOKENIZER, TOKENIZERS
from mos_fairseq.nas import EvolutionOptions
from mos_fairseq.nas.constraints import COST_KEYS

if TYPE_CHECKING:
    from mos_fairseq.nas import ParetoOptions

ALGORITHMS = ("evolution", "nsga2", "random")


@dataclass(frozen=True)
class RandomOptions:
    """Of random search. Raises InputError if a number is out of range."""

    num_subnets: int
    seed: int

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed)
        at_least(1, num_subnets=self.num_subnets)

    @property
    def most_subnets(self) -> int:
        """What is judged where the budgets leave as many."""
        return self.num_subnets


AlgorithmOptions: TypeAlias = "EvolutionOptions | ParetoOptions | RandomOptions"


def get_parser() -> argparse.ArgumentParser:
    """The command line of ``mos-search``."""
    parser = command_parser(
        "mos-search",
        "Search a trained supernet for the best subnet within budgets, or for the front of quality against "
        "a cost. Subnets are judged with the weights they inherit; each is judged once, also across runs. An "
        "interrupted search goes on when it is started again.",
        "mos-search data-bin --path checkpoints/checkpoint_best.pt --predictor predictor.json "
        "--constraint 'latency_ms<=40' --valid-samples 500 --output search",
    )
    parser.add_argument("data", help="folder that fairseq-preprocess made")
    parser.add_argument("--path", required=True, metavar="CKPT", help="the supernet's checkpoint")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--constraint",
        action="append",
        default=[],
        metavar="KEY<=N",
        help="a budget, as in 'latency_ms<=40', or in parts of the largest subnet's, as in 'latency_ms<=80%%'; may be "
        f"given several times; KEY is one of {', '.join(COST_KEYS)}",
    )
    parser.add_argument("--predictor", metavar="JSON", help="of mos-latency fit: needed for latency_ms")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="evolution", help="default: %(default)s")
    parser.add_argument("--objective", choices=OBJECTIVES, default="loss", help="quality (default: %(default)s)")
    parser.add_argument(
        "--cost",
        choices=COST_KEYS,
        help="what the front trades quality against (default: latency_ms with a predictor, or else flops)",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="folder of judged subnets, shared by all searches of a checkpoint (default: subnet-evaluations beside it)",
    )
    parser.add_argument(
        "--measure-front",
        metavar="JSONL",
        help="measure the front's subnets on this machine too, as the predictor's were; FILE of mos-latency measure, "
        "which is continued, or a new one",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that judge subnets (default: 1); for several machines, start mos-search with torchrun instead",
    )
    parser.add_argument("--device", help="to judge on, as in cuda:0 (default: the GPUs, or else the CPU)")
    _add_algorithm_options(parser)
    _add_evaluation_options(parser)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the search (default: 1)")
    parser.add_argument(
        "--report-bleu",
        action="store_true",
        help="also translate the validation set with the subnets of the closing table: BLEU, half of its 95 %% "
        "interval by bootstrap, and the p-value of the difference to the best subnet's",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_algorithm_options(parser: argparse.ArgumentParser) -> None:
    hat = EvolutionOptions()
    parser.add_argument(
        "--population-size", type=int, default=hat.population_size, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--iterations", type=int, default=hat.iterations, metavar="N", help="default: %(default)s")
    parser.add_argument("--parents", type=int, default=hat.parents, metavar="N", help="evolution; default: %(default)s")
    for name in ("mutations", "crossovers"):
        default = getattr(hat, name)
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"children a generation; default: {default}"
        )
    parser.add_argument(
        "--mutation-prob", type=float, default=hat.mutation_prob, metavar="P", help="evolution; default: %(default)s"
    )
    parser.add_argument(
        "--num-subnets", type=int, default=1000, metavar="N", help="of random search (default: %(default)s)"
    )


def _add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    defaults = EvaluationOptions()
    parser.add_argument("--valid-subset", default="valid", metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--valid-samples", type=int, metavar="N", help="judge on N sentence pairs, always the same (default: all)"
    )
    parser.add_argument("--max-tokens", type=int, default=defaults.max_tokens, metavar="N", help="default: %(default)s")
    translating = "for bleu and chrf, and --report-bleu"
    parser.add_argument("--beam", type=int, metavar="N", help=f"{translating} (default: {defaults.beam})")
    parser.add_argument(
        "--remove-bpe", nargs="?", const="@@ ", metavar="SYMBOL", help=f"{translating}, as fairseq's option"
    )
    add_tokenizer_option(parser)


def add_tokenizer_option(parser: argparse.ArgumentParser) -> None:
    """``--sacrebleu-tokenizer``, as fairseq-generate has it."""
    parser.add_argument(
        "--sacrebleu-tokenizer",
        choices=TOKENIZERS,
        default=DEFAULT_TOKENIZER,
        help="sacreBLEU's, for bleu: 13a splits at spaces, so Chinese takes zh, Japanese ja-mecab, Thai and others "
        "flores200 or char (default: %(default)s)",
    )


def algorithm_options(args: argparse.Namespace, cost: str) -> AlgorithmOptions:
    """What the chosen algorithm takes. Raises InputError if a number is out of range."""
    if args.algorithm == "evolution":
        names = ("population_size", "parents", "mutations", "mutation_prob", "crossovers", "iterations", "seed")
        return EvolutionOptions(**{name: getattr(args, name) for name in names})
    if args.algorithm == "nsga2":
        from mos_fairseq.nas import ParetoOptions

        return ParetoOptions(cost, args.population_size, args.iterations, args.seed)
    return RandomOptions(args.num_subnets, args.seed)


def evaluation_options(args: argparse.Namespace) -> EvaluationOptions:
    """How subnets are judged. Raises InputError for a bad value, or one that the objective does not use."""
    judged = ("objective", "valid_subset", "valid_samples", "max_tokens")
    if args.objective != "loss":
        judged += _TRANSLATING
    elif not args.report_bleu:
        for name in ("beam", "remove_bpe"):
            if (value := getattr(args, name)) is not None:
                raise InputError(f"{name} is {value}, but objective is loss, for which nothing is translated")
        judged += ("sacrebleu_tokenizer",)  # which EvaluationOptions refuses
    return EvaluationOptions(**_given(args, judged))


def report_options(args: argparse.Namespace) -> EvaluationOptions | None:
    """How the subnets of the closing table are translated, if they are. Raises InputError for a bad value."""
    if not args.report_bleu:
        return None
    names = ("valid_subset", "valid_samples", "max_tokens", *_TRANSLATING)
    return EvaluationOptions("bleu", **_given(args, names))


_TRANSLATING = ("beam", "remove_bpe", "sacrebleu_tokenizer")


def _given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name)) is not None}
