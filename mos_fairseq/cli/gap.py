"""``mos-gap``: scores of subnets with inherited weights, compared with the same architectures trained alone."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_fairseq.cli import aligned, check_exists, command_parser, example_of, named_paths, split_at_dashes, start
from mos_fairseq.cli.judging_options import add_judging_options, judge_of, judged_how
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.evaluation.scoring import TEXT_METRICS
from mos_fairseq.files import make_folder, write_atomically
from mos_fairseq.gap import Row, read_table, write_table
from mos_fairseq.search_space import split_specs

if TYPE_CHECKING:
    from mos_fairseq.gap.measure import Experiment

_EXAMPLE = (
    "mos-gap measure data-bin --path none=none/checkpoint_last.pt --path neuron=checkpoints/checkpoint_last.pt "
    "--num-subnets 6 --output gap\n"
    "mos-gap measure data-text --path checkpoints-bert/checkpoint_last.pt --num-subnets 6 --metric loss "
    "--output gap    # masked language models"
)


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mos-gap``."""
    parser = command_parser(
        "mos-gap",
        "Compare the scores of subnets with weights inherited from a supernet with the scores of the same "
        "architectures trained alone.",
        _EXAMPLE,
    )
    commands = parser.add_subparsers(dest="action", required=True)
    _add_measure(commands)
    text = "the same report from existing scores"
    example = example_of("mos-gap report gap/gap.jsonl --output report")
    report = commands.add_parser("report", help=text, description=text, allow_abbrev=False, **example)
    report.add_argument(
        "table",
        nargs="+",
        help="CSV (with a header line) or JSON lines: columns subnet, inherited, standalone, optionally supernet, "
        "metric, extra_updates",
    )
    _add_output(report)
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the report")
    parser.add_argument("--json", action="store_true", help="print the gaps as JSON")


def _add_measure(commands: Any) -> None:
    measure = commands.add_parser(
        "measure",
        help="score subnets, train them alone, compare",
        description="Score subnets of one or more supernets, train each architecture alone with fairseq-train, and "
        "compare. An interrupted run resumes when started again. Options after -- go to fairseq-train and override "
        "those recorded in the supernet's checkpoint. Its dropout is used unscaled, although the supernet scales it by "
        "a subnet's width.",
        allow_abbrev=False,
        **example_of(_EXAMPLE),
    )
    measure.add_argument("data", help="folder made by fairseq-preprocess")
    measure.add_argument(
        "--path",
        required=True,
        action="append",
        metavar="[NAME=]CKPT",
        help="a supernet's checkpoint; may be repeated: then supernets of one search space are compared, and share the "
        "standalone models",
    )
    _add_output(measure)
    measure.add_argument(
        "--standalone",
        metavar="DIR",
        help="folder of the standalone models, shared by all runs with the same data and training (default: standalone "
        "in the output folder)",
    )
    measure.add_argument("--subnet", default="", metavar="S", help="subnets, separated by commas, as for mos-cost")
    measure.add_argument("--num-subnets", type=int, default=0, metavar="N", help="further subnets, random:SEED and on")
    measure.add_argument("--seed", type=int, metavar="SEED", help="seed of the first of them (default: 1)")
    measure.add_argument(
        "--max-update", type=int, metavar="N", help="updates of standalone training (default: the supernet's)"
    )
    measure.add_argument(
        "--finetune-updates",
        default="",
        metavar="N,N,…",
        help="also fine-tune the inherited weights for increasing numbers of updates, up to the standalone score, each "
        "number from the start as mos-finetune does (with a --lr-scheduler given, one training goes on); "
        "finetuning.png shows the scores against the updates",
    )
    measure.add_argument(
        "--finetune-options",
        default="",
        metavar="TEXT",
        help="options of fairseq-train for that, as in '--lr 2e-4 --warmup-updates 50'; they override all others, and "
        "the rate and schedule of mos-finetune",
    )
    measure.add_argument(
        "--bootstrap",
        type=int,
        metavar="N",
        help="with bleu and chrf: number of test sets that sacreBLEU's paired bootstrap resamples, to compare the "
        "scores of other supernets with the first's; 0 for no comparison. It covers chance in the choice of test "
        "sentences, not in training's seeds (default: 1000)",
    )
    measure.add_argument("--workers", type=int, default=1, metavar="N", help="parallel trainings (default: 1)")
    add_judging_options(measure, "test")


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    words = sys.argv[1:] if argv is None else argv
    mine, more = split_at_dashes(words)
    args = get_parser().parse_args(mine)
    if args.action == "report":
        if "--" in words:
            raise InputError(f"{shlex.join(['--', *more])} is given with mos-gap report, but report trains nothing")
        rows, record = _read_tables(args.table), {"tables": args.table}
    else:
        experiment = _experiment(args, more)
        experiment.check()
        make_folder(args.output, "output")
        rows = list(experiment.rows())
        record = _record(args, experiment)
    from mos_fairseq.gap.report import versions

    _report(args, rows, {"command": shlex.join(["mos-gap", *words]), "versions": versions()} | record)


def _read_tables(paths: Sequence[str]) -> list[Row]:
    rows: dict[tuple[str, str, str], Row] = {}
    for path in paths:
        for row in read_table(path):
            name = (row.metric, row.supernet, row.subnet)
            if name in rows:
                raise InputError(f"{path}: subnet {row.subnet} of {row.supernet} is in another table, too")
            rows[name] = row
    return list(rows.values())


def _experiment(args: argparse.Namespace, more: list[str]) -> Experiment:
    at_least(1, workers=args.workers, max_update=args.max_update)
    at_least(0, num_subnets=args.num_subnets, seed=args.seed, bootstrap=args.bootstrap)
    if args.seed is not None and not args.num_subnets:
        raise InputError(f"seed is {args.seed}: it has no effect without --num-subnets")
    args.seed = 1 if args.seed is None else args.seed
    specs = split_specs(args.subnet) if args.subnet else []
    specs += [f"random:{seed}" for seed in range(args.seed, args.seed + args.num_subnets)]
    if not (seed := os.environ.get("SACREBLEU_SEED", "12345")).isdecimal() and seed.lower() != "none":
        raise InputError(f"SACREBLEU_SEED is {seed}: allowed are whole numbers from 0, or unset")
    if args.metric == "loss" and args.bootstrap is not None:
        raise InputError(f"bootstrap is {args.bootstrap}: it has no effect with metric loss")
    supernets, growing = named_paths(args.path), _growing(args.finetune_updates)
    if args.bootstrap and len(supernets) == 1:
        raise InputError(f"bootstrap is {args.bootstrap}: it has no effect with one supernet, it compares several")
    args.bootstrap = 1000 if args.bootstrap is None and args.metric != "loss" else args.bootstrap or 0
    if args.finetune_options and not growing:
        raise InputError(f"finetune_options is {args.finetune_options}: it has no effect without --finetune-updates")
    if not specs:
        raise InputError("no subnets are given: --subnet S,S,… or --num-subnets N, or both")
    split_specs(",".join(specs))  # refuses two of the same name
    evaluation = judged_how(args)
    for path in supernets.values():
        check_exists(path)
    start()
    import torch

    from mos_fairseq.gap.measure import Experiment

    return Experiment(
        supernets=supernets,
        specs=specs,
        judge=judge_of(args, evaluation),
        output=Path(args.output),
        standalone=Path(args.standalone or Path(args.output) / "standalone"),
        updates=args.max_update,
        more=more,
        finetune_updates=growing,
        finetune_more=_words(args.finetune_options),
        workers=args.workers,
        bootstrap=args.bootstrap,
        threads=max(1, torch.get_num_threads() // args.workers),
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:  # an open quote
        reason = str(error).lower()
        raise InputError(f"finetune_options is {text}: allowed are words as in a shell ({reason})") from None


def _growing(text: str) -> list[int]:
    numbers = text.split(",") if text else []
    if not all(number.strip().isdecimal() for number in numbers):
        raise InputError(f"finetune_updates is {text}: allowed are whole numbers separated by commas")
    updates = [int(number) for number in numbers]
    if updates != sorted(set(updates)) or 0 in updates:
        raise InputError(f"finetune_updates is {text}: allowed are increasing numbers from 1")
    return updates


def _record(args: argparse.Namespace, experiment: Experiment) -> dict[str, Any]:
    """Return a record of the experiment, enough to repeat it."""
    trainings = {label: experiment.training(subnet) for label, subnet in experiment.subnets.items()}
    return {
        "data": args.data,
        "supernets": dict(experiment.supernets),
        "architectures": {label: subnet.to_dict() for label, subnet in experiment.subnets.items()},
        "seed": args.seed,
        "bootstrap": {"samples": args.bootstrap, "seed": os.environ.get("SACREBLEU_SEED", "12345")},
        "evaluation": asdict(experiment.judge.options) | {"reference": args.reference},
        "signature": experiment.signature,
        "standalone": {
            "updates": experiment.budget,
            "runs": {
                label: {"folder": str(training.folder), "command": shlex.join(training.command)}
                for label, training in trainings.items()
            },
        },
        "finetuning": {"updates": list(experiment.finetune_updates), "options": args.finetune_options},
    }


def _report(args: argparse.Namespace, rows: list[Row], record: dict[str, Any]) -> None:
    from mos_fairseq.gap.report import difference_table, gap_table, plot_finetuning, plot_gap, score_table, summarise

    output, summaries = Path(args.output), summarise(rows)
    make_folder(args.output, "output")
    content = record | {"gaps": summaries, "scores": [row.to_dict() for row in rows]}
    write_atomically(output / "gap.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_table(rows, output / "gap.jsonl")
    plot_gap(rows, output / "gap.png")
    tuned = any(row.finetuned for row in rows)
    if tuned:
        plot_finetuning(rows, output / "finetuning.png")
    if args.json:
        print(json.dumps(summaries, allow_nan=False))
        return
    for metric in dict.fromkeys(row.metric for row in rows):
        print(aligned(score_table(rows, metric)) + "\n")
        print(aligned(gap_table(summaries, metric)) + "\n")
    for metric in TEXT_METRICS:
        if differences := difference_table(rows, metric):
            print(aligned(differences) + "\n")
    print(f"report: {output / 'gap.json'}, gap.jsonl, gap.png{', finetuning.png' if tuned else ''}")
