"""``mos-finetune``: train one subnet of a supernet alone for a few updates."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from mos_fairseq.cli import aligned, check_exists, command_parser, split_at_dashes, start
from mos_fairseq.cli.judging_options import add_judging_options, judge_of, judged_how
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.files import make_folder, write_atomically


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mos-finetune``."""
    parser = command_parser(
        "mos-finetune",
        "Train one subnet of a supernet on, alone, from its inherited weights, and score it before and after. "
        "fairseq-train trains it with the options recorded in the supernet's checkpoint; the learning rate "
        "rises in the first tenth of the updates and then falls linearly to 0. Options after -- go to fairseq-train "
        "and override. An interrupted run resumes when started again.",
        "mos-finetune data-bin --path checkpoints/checkpoint_last.pt --subnet search/best.yaml --updates 300 "
        "--remove-bpe sentencepiece --output finetuned\n"
        "mos-finetune data-text --path checkpoints-bert/checkpoint_last.pt --subnet best.yaml --updates 300 "
        "--metric loss --output tuned    # masked language models",
    )
    parser.add_argument("data", help="folder made by fairseq-preprocess")
    parser.add_argument("--path", required=True, metavar="CKPT", help="the supernet's checkpoint")
    parser.add_argument(
        "--subnet",
        required=True,
        metavar="S",
        help="largest, smallest, random:SEED, controller (of --subnet-sampling controller), a YAML file, or JSON in "
        "braces",
    )
    parser.add_argument("--updates", required=True, type=int, metavar="N", help="number of updates of the subnet alone")
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder of the results: finetuned.pt, a static twin; finetuned.yaml, its sizes; finetune.json, the scores",
    )
    parser.add_argument(
        "--lr",
        type=float,
        metavar="LR",
        help="highest learning rate (default: that of the supernet's last update; a third of its highest after "
        "cosine, polynomial_decay and tri_stage)",
    )
    add_judging_options(parser, "valid")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    words = sys.argv[1:] if argv is None else argv
    mine, more = split_at_dashes(words)
    args = get_parser().parse_args(mine)
    at_least(1, updates=args.updates)
    if args.lr is not None:
        if not 0 < args.lr < float("inf"):
            raise InputError(f"lr is {args.lr}: allowed are numbers above 0")
        if any(word.partition("=")[0] == "--lr" for word in more):
            raise InputError(f"lr is {args.lr}, and --lr is given after -- too: give it once")
    options = judged_how(args)
    check_exists(args.path)
    start()
    import torch

    from mos_fairseq.standalone.finetuning import Finetuning

    finetuning = Finetuning(
        supernet=args.path,
        spec=args.subnet,
        updates=args.updates,
        output=Path(args.output),
        judge=judge_of(args, options),
        lr=args.lr,
        more=more,
        threads=torch.get_num_threads(),
    )
    subnet = finetuning.subnet
    make_folder(args.output, "output")
    scores = finetuning.run()
    subnet.save(Path(args.output) / "finetuned.yaml")
    training, checkpoint = finetuning.training, finetuning.checkpoint
    record = {
        "command": shlex.join(["mos-finetune", *words]),
        "training": shlex.join(training.command),
        "updates": args.updates,
        "architecture": subnet.to_dict(),
        "scores": scores,
    }
    write_atomically(Path(args.output) / "finetune.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    if args.json:
        print(json.dumps({"output": str(checkpoint)} | scores))
        return
    names = finetuning.judge.metrics
    digits = {"loss": 4}
    rows = [[kind, *(f"{found[name]:.{digits.get(name, 2)}f}" for name in names)] for kind, found in scores.items()]
    print(f"{args.updates} updates of {subnet.summary()}")
    print(aligned([["weights", *names], *rows]))
    print(f"model: {checkpoint}")
