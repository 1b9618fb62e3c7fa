"""The command line of ``mos-search``, and the options that it describes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from mos_fairseq.cli import Group, command_parser
from mos_fairseq.cli.calibration import add_calibration_options
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.evaluation.options import OBJECTIVES, EvaluationOptions
from mos_fairseq.evaluation.scoring import DEFAULT_TOKENIZER, TEXT_METRICS, TOKENIZERS, text_metric
from mos_fairseq.nas import EvolutionOptions
from mos_fairseq.nas.constraints import COST_KEYS
from mos_fairseq.nas.names import INNER_SEARCHES, QUALITY_PREDICTORS
from mos_fairseq.transfer import TRANSFER_DTYPES

if TYPE_CHECKING:
    from mos_fairseq.nas import AsngOptions, LinasOptions, ParetoOptions

ALGORITHMS = ("evolution", "nsga2", "random", "linas", "asng")


@dataclass(frozen=True)
class RandomOptions:
    """Options of random search. Raises InputError if a number is out of range."""

    num_subnets: int
    seed: int

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed)
        at_least(1, num_subnets=self.num_subnets)

    @property
    def most_subnets(self) -> int:
        """Return the number of judged subnets if the budgets leave as many."""
        return self.num_subnets


if TYPE_CHECKING:
    AlgorithmOptions: TypeAlias = EvolutionOptions | ParetoOptions | RandomOptions | LinasOptions | AsngOptions


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mos-search``."""
    parser = command_parser(
        "mos-search",
        "Search a trained supernet for the best subnet within budgets, or for the front of quality against "
        "a cost. Subnets are judged with inherited weights; each is judged once, also across runs. An "
        "interrupted search resumes when started again.",
        "mos-search data-bin --path checkpoints/checkpoint_best.pt --predictor predictor.json "
        "--constraint 'latency_ms<=40' --valid-samples 500 --output search\n"
        "mos-search data-text --path checkpoints-bert/checkpoint_best.pt --constraint 'params<=50%' --output s    "
        "# masked language models",
    )
    parser.add_argument("data", help="folder made by fairseq-preprocess")
    parser.add_argument("--path", required=True, metavar="CKPT", help="the supernet's checkpoint")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    group = parser.add_argument_group("search")
    group.add_argument(
        "--constraint",
        action="append",
        default=[],
        metavar="KEY<=N",
        help="a budget, as in 'latency_ms<=40', or relative to the largest subnet, as in 'latency_ms<=80%%'; may be "
        f"repeated; KEY is one of {', '.join(COST_KEYS)}",
    )
    group.add_argument("--predictor", metavar="JSON", help="file of mos-latency fit, needed for latency_ms")
    group.add_argument(
        "--choices",
        action="append",
        default=[],
        metavar="KEY=N[,N]",
        help="search only subnets with these of the choices of KEY, an elastic dimension of the search space, for "
        "instance those that an export format supports; may be repeated; smallest and largest are then those of this "
        "part of the space",
    )
    group.add_argument(
        "--objective",
        choices=OBJECTIVES,
        default="loss",
        help="quality; accuracy is of classifiers, bleu and chrf of translations (default: %(default)s)",
    )
    group.add_argument(
        "--cost",
        metavar="KEY[,KEY]",
        help=f"cost of the front, one of {', '.join(COST_KEYS)}; several with nsga2 or "
        "random (default: split_latency_ms with --split, latency_ms with a predictor, otherwise flops)",
    )
    group.add_argument(
        "--seeds-from",
        metavar="FILE",
        help="start from known subnets: a subnet's YAML file, front.jsonl or search.json of another search, or "
        "controller, the answer of --subnet-sampling controller; subnets that miss a budget or --choices are left "
        "out",
    )
    _add_algorithm_options(parser.add_argument_group("algorithm"))
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="folder of judged subnets, shared by all searches of a checkpoint (default: subnet-evaluations beside it)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that judge subnets (default: 1); on several machines, start mos-search with torchrun instead",
    )
    parser.add_argument("--device", help="device to judge on, as in cuda:0 (default: the GPUs, otherwise the CPU)")
    _add_evaluation_options(parser.add_argument_group("judging"))
    add_calibration_options(parser.add_argument_group("calibration before ranking"))
    _add_split_options(parser.add_argument_group("split computing"))
    group = parser.add_argument_group("report")
    group.add_argument(
        "--measure-front",
        metavar="JSONL",
        help="also measure the front's subnets on this machine, with the predictor's settings, and corrected to the "
        "speed that the machine had in its measurements; FILE of mos-latency measure, which is continued, or a new one",
    )
    group.add_argument(
        "--report-bleu",
        action="store_true",
        help="also translate the validation set with the subnets of the closing table: BLEU, half of its 95 %% "
        "interval by bootstrap, and the p-value of the difference to the best subnet's",
    )
    group.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_split_options(parser: Group) -> None:
    parser.add_argument(
        "--split",
        nargs=2,
        metavar=("DEVICE", "SERVER"),
        help="run the encoder on one machine and the decoder on another: predictors of both, from mos-latency fit "
        "--target split; for encoder_ms, decoder_ms, transfer_bytes and split_latency_ms",
    )
    parser.add_argument("--bandwidth-mbps", type=float, metavar="B", help="split; megabits a second, or inf")
    parser.add_argument("--rtt-ms", type=float, metavar="R", help="split; round trip between them (default: 0)")
    parser.add_argument(
        "--transfer-dtype",
        choices=TRANSFER_DTYPES,
        help="split; dtype of the encoder outputs that are sent; quality is judged with it, too (default: float32)",
    )


def check_split_options(args: argparse.Namespace) -> None:
    """Raise InputError if one of these options is missing, or has no effect."""
    if args.split is not None:
        if args.bandwidth_mbps is None:
            raise InputError("split needs the connection: --bandwidth-mbps B, and --rtt-ms R for its round trip")
        return
    for name in ("bandwidth_mbps", "rtt_ms", "transfer_dtype"):
        if (value := getattr(args, name)) is not None:
            raise InputError(f"{name} is {value}: it has no effect without --split DEVICE SERVER")


def _add_algorithm_options(parser: Group) -> None:
    hat = EvolutionOptions()
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="evolution", help="default: %(default)s")
    add = partial(parser.add_argument, type=int, metavar="N")
    add("--seed", default=1, help="seed of the search (default: 1)")
    add("--population-size", help=f"default: {hat.population_size}; for a batch of linas 50")
    add("--iterations", help=f"default: {hat.iterations}; for linas 5 batches after the first; for asng 500 steps")
    add("--parents", help=f"evolution; default: {hat.parents}")
    for name in ("mutations", "crossovers"):
        add(f"--{name}", help=f"evolution; children a generation; default: {getattr(hat, name)}")
    add("--mutation-prob", type=float, metavar="P", help=f"evolution; default: {hat.mutation_prob}")
    add("--num-subnets", help="random; number of subnets (default: 1000)")
    add("--samples", help="asng; subnets drawn for a step (default: 2)")
    add(
        "--inner-search",
        type=str,
        choices=INNER_SEARCHES,
        metavar="NAME",
        help="linas; search on predictions: evolution, for the best within the budgets, or nsga2, for the front "
        "(default: evolution)",
    )
    add("--inner-evaluations", help="linas; predictions for each batch (default: 2000)")
    add(
        "--quality-predictor",
        type=str,
        choices=QUALITY_PREDICTORS,
        metavar="NAME",
        help=f"linas; {', '.join(QUALITY_PREDICTORS)} (default: auto, the one with the lowest cross-validated error)",
    )
    add("--random-share", type=float, metavar="P", help="linas; share of a batch drawn at random (default: 0.1)")


def _add_evaluation_options(parser: Group) -> None:
    defaults = EvaluationOptions()
    parser.add_argument("--valid-subset", default="valid", metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--valid-samples", type=int, metavar="N", help="judge on N examples, always the same (default: all)"
    )
    parser.add_argument("--max-tokens", type=int, default=defaults.max_tokens, metavar="N", help="default: %(default)s")
    translating = "for bleu and chrf, and --report-bleu"
    parser.add_argument("--beam", type=int, metavar="N", help=f"{translating} (default: {defaults.beam})")
    parser.add_argument(
        "--remove-bpe", nargs="?", const="@@ ", metavar="SYMBOL", help=f"{translating}, as fairseq's option"
    )
    add_tokenizer_option(parser)


def add_tokenizer_option(parser: Group) -> None:
    """Add ``--sacrebleu-tokenizer``, as fairseq-generate has it."""
    parser.add_argument(
        "--sacrebleu-tokenizer",
        choices=TOKENIZERS,
        default=DEFAULT_TOKENIZER,
        help="sacreBLEU's tokenizer, for bleu: 13a splits at spaces, so Chinese needs zh, Japanese ja-mecab, Thai and "
        "others flores200 or char (default: %(default)s)",
    )


_TAKES = {
    "evolution": ("population_size", "parents", "mutations", "mutation_prob", "crossovers", "iterations"),
    "nsga2": ("population_size", "iterations"),
    "random": ("num_subnets",),
    "linas": (
        "population_size", "iterations", "inner_search", "inner_evaluations", "quality_predictor", "random_share",
    ),
    "asng": ("samples", "iterations"),
}  # fmt: skip


def cost_keys(text: str) -> tuple[str, ...]:
    """Return the keys of ``--cost``. Raises InputError for an unknown or repeated one."""
    keys = tuple(key.strip() for key in text.split(","))
    for key in keys:
        if key not in COST_KEYS:
            raise InputError(f"cost is {text}: {key} is not known; allowed are {', '.join(COST_KEYS)}")
    if len(set(keys)) < len(keys):
        raise InputError(f"cost is {text}: each is allowed once")
    return keys


def kept_choices(texts: Sequence[str]) -> dict[str, list[int]]:
    """Return the choices by key that ``--choices`` names. Raises InputError for another form, or a repeated key."""
    found: dict[str, list[int]] = {}
    for text in texts:
        match = re.fullmatch(r"\s*(\w+)\s*=\s*(-?[0-9]+(?:\s*,\s*-?[0-9]+)*)\s*", text)
        if match is None:
            raise InputError(f"choices {text!r}: allowed is KEY=N[,N], with integers")
        if match[1] in found:
            raise InputError(f"choices {text!r}: {match[1]} is given twice; several choices are separated by commas")
        found[match[1]] = [int(number) for number in match[2].split(",")]
    return found


def algorithm_options(args: argparse.Namespace, costs: tuple[str, ...]) -> AlgorithmOptions:
    """Return the algorithm's options. Raises InputError if a number is out of range or an option has no effect."""
    algorithm, cost = args.algorithm, costs[0]
    if len(costs) > 1 and algorithm not in ("nsga2", "random"):
        raise InputError(f"cost is {','.join(costs)}: several belong to algorithm nsga2 or random, this is {algorithm}")
    if args.seeds_from is not None and algorithm == "asng":
        raise InputError(f"seeds_from is {args.seeds_from}: it has no effect with algorithm asng, which draws all")
    given = {name: value for names in _TAKES.values() for name in names if (value := getattr(args, name)) is not None}
    for name, value in given.items():
        if name not in _TAKES[algorithm]:
            takers = " and ".join(other for other, names in _TAKES.items() if name in names)
            raise InputError(f"{name} is {value}: it has no effect with algorithm {algorithm}, only with {takers}")
    taken = {name: value for name, value in given.items() if name in _TAKES[algorithm]}
    if algorithm == "evolution":
        return EvolutionOptions(**taken, seed=args.seed)
    if algorithm == "random":
        return RandomOptions(taken.get("num_subnets", 1000), args.seed)
    if algorithm == "linas":
        from mos_fairseq.nas import LinasOptions

        return LinasOptions(**taken, objective=cost, seed=args.seed)
    if algorithm == "asng":
        from mos_fairseq.nas import AsngOptions

        return AsngOptions(**taken, seed=args.seed)
    from mos_fairseq.nas import ParetoOptions

    hat = EvolutionOptions()
    size = taken.get("population_size", hat.population_size)
    iterations = taken.get("iterations", hat.iterations)
    at_least(2, iterations=iterations)  # ParetoOptions calls them generations
    return ParetoOptions(costs if len(costs) > 1 else cost, size, iterations, args.seed)


def evaluation_options(args: argparse.Namespace) -> EvaluationOptions:
    """Return the options for judging. Raises InputError for a bad value, or one that the objective does not use."""
    judged: tuple[str, ...] = ("objective", "valid_subset", "valid_samples", "max_tokens", "transfer_dtype")
    if args.objective in TEXT_METRICS:
        judged += ("beam", "remove_bpe")
    elif not args.report_bleu:
        for name in ("beam", "remove_bpe"):
            if (value := getattr(args, name)) is not None:
                raise InputError(
                    f"{name} is {value}, but objective is {args.objective}, for which nothing is translated"
                )
    if args.objective == "bleu" or not args.report_bleu:  # otherwise, it belongs to the reported BLEU
        judged += ("sacrebleu_tokenizer",)  # EvaluationOptions refuses it for other objectives
    return EvaluationOptions(**_given(args, judged))


def report_options(args: argparse.Namespace) -> EvaluationOptions | None:
    """Return options for translating with the closing table's subnets, or None. Raises InputError for a bad value, or a
    tokenizer that sacreBLEU cannot use here, which would otherwise show after the search."""
    if not args.report_bleu:
        return None
    names = ("valid_subset", "valid_samples", "max_tokens", "transfer_dtype", *_TRANSLATING)
    options = EvaluationOptions("bleu", **_given(args, names))
    text_metric("bleu", options.sacrebleu_tokenizer)
    return options


_TRANSLATING = ("beam", "remove_bpe", "sacrebleu_tokenizer")


def _given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name)) is not None}
