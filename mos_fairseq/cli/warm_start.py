"""``mos-warm-start``: a supernet out of a trained model of fairseq's own, or out of a supernet.

It is the inverse of ``mos-export``, but not called ``mos-import``: ``import`` is a Python keyword, no module's name.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from mos_fairseq.cli import check_exists, check_output, check_seed, command_parser, start
from mos_fairseq.errors import InputError
from mos_fairseq.mos_options import CHOICES, MosOptions, check_experts
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.warm_start import MASKED, SIDES, check_family_of, has_narrower_attention, has_narrower_embeddings

if TYPE_CHECKING:
    from mos_fairseq.evaluation.options import EvaluationOptions
    from mos_fairseq.models import Supernet
    from mos_fairseq.warm_start import Orders, StockModel


_NOISE = 0.01


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mos-warm-start``."""
    parser = command_parser(
        "mos-warm-start",
        "Make a supernet out of a trained fairseq transformer or roberta, or of a BERT or RoBERTa of Hugging Face's, "
        "which becomes its largest subnet: the same results before any training (with ranks, the best approximation of "
        "its matrices). Neurons and heads (and channels, with learned positions) are put in the order of their "
        "importance, since a subnet uses the first of them; with "
        "--reorder those of a supernet that is being trained. Or give a trained supernet of plain weight sharing "
        "experts of low rank: each subnet's results stay what they are.",
        "mos-warm-start --path transformer.pt --search-space space.yaml --data data-bin --output warm.pt\n"
        "mos-warm-start --path bert-folder --search-space bert.yaml --output warm.pt    # masked language models\n"
        "mos-warm-start --path checkpoint_last.pt --reorder --data data-bin --output reordered.pt\n"
        "mos-warm-start --path supernet.pt --search-space space.yaml --expert-rank 8 --output warm.pt    # as it is",
    )
    parser.add_argument(
        "--path",
        required=True,
        metavar="CKPT",
        help="checkpoint of fairseq's own transformer or roberta; with --expert-rank also of a supernet of "
        "--mos-routing none, where all stays in its place; or a folder of Hugging Face's with config.json, "
        "model.safetensors and a vocabulary, whose tokens are written as a dictionary beside the output, FILE.dict.txt",
    )
    parser.add_argument(
        "--search-space",
        metavar="X",
        help="preset or YAML file (needed without --reorder); its largest choices are the checkpoint's sizes, its only "
        "cross-attention span is -1",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="checkpoint of the supernet")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="measure importance by gradients on sentences of this folder, instead of by the sizes of weights",
    )
    parser.add_argument("--valid-subset", default="valid", metavar="NAME", help="set in the folder (default: valid)")
    parser.add_argument(
        "--valid-samples", type=int, default=500, metavar="N", help="sentences or pairs (default: %(default)s)"
    )
    parser.add_argument("--max-tokens", type=int, default=4000, metavar="N", help="of a batch (default: %(default)s)")
    parser.add_argument(
        "--reorder",
        action="store_true",
        help="the checkpoint is a supernet's, whose neurons and heads are put in order, in all experts, routers, "
        "averages and moments of the optimizer alike; its largest subnet stays what it was, and training goes on "
        "from the output (fairseq-train --restore-file)",
    )
    parser.add_argument("--no-reorder", action="store_true", help="leave everything in its place")
    parser.add_argument(
        "--learn-positions",
        action="store_true",
        help="turn sinusoidal positions into learned ones with the same initial values, so that channels can be "
        "reordered: sinusoids are fixed to their channels",
    )
    parser.add_argument(
        "--expert-noise",
        type=float,
        metavar="S",
        help="spread of the differences between experts, over that of their weights; it cancels in the largest subnet "
        f"(default: {_NOISE}); those of low rank have factors that differ, and no noise",
    )
    _add_routing(parser)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of routers, noise, data (default: 1)")
    return parser


def _add_routing(parser: argparse.ArgumentParser) -> None:
    for field in fields(MosOptions):
        option = f"--{field.name.replace('_', '-')}"
        more = {"choices": CHOICES[field.name]} if field.name in CHOICES else {"metavar": "N"}
        kind = str if field.name in CHOICES else int
        parser.add_argument(
            option, type=kind, default=field.default, help="as in fairseq-train (default: %(default)s)", **more
        )


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.no_reorder and args.data:
        raise InputError("data is given with --no-reorder, but only reordering needs importance")
    for name in ("valid_subset", "valid_samples", "max_tokens") if args.data is None else ():
        if (value := getattr(args, name)) != parser.get_default(name):
            raise InputError(f"{name} is {value}: it has no effect without --data")
    check_seed(args.seed)
    check_output(args.output, path=args.path)
    if args.reorder:
        for name in ("search_space", "no_reorder", "learn_positions", "expert_noise", *_routing(args)):
            if (value := getattr(args, name)) != parser.get_default(name):
                raise InputError(f"{name} is {value}: it has no effect with --reorder, which keeps the supernet's own")
        _reorder(args)
        return
    check_experts(args)
    if args.search_space is None:
        raise InputError("search_space is not given: allowed are a preset or a YAML file; only --reorder needs none")
    if args.expert_rank and args.expert_noise is not None:
        raise InputError(f"expert_noise is {args.expert_noise}: it has no effect on experts of low rank")
    if args.mos_routing == "none" and args.expert_noise is not None:
        raise InputError(f"expert_noise is {args.expert_noise}: it has no effect with mos_routing none")
    args.expert_noise = _NOISE if args.expert_noise is None else args.expert_noise
    space = SearchSpace.from_spec(args.search_space)
    if args.expert_rank and _warm_start_supernet(args, space):
        return
    check_family_of(space)
    if space.family == MASKED:
        _warm_start_masked(args, space)
        return
    check_exists(args.path)
    start()
    from mos_fairseq.checkpoints import save_checkpoint
    from mos_fairseq.models import TransformerMosConfig
    from mos_fairseq.warm_start import check_space, read_transformer, supernet_checkpoint, supernet_from

    stock = read_transformer(args.path)
    check_space(stock.args, space)
    none = stock.args.no_token_positional_embeddings
    if args.learn_positions and (none or all(getattr(stock.args, f"{side}_learned_pos") for side in SIDES)):
        kind = "no" if none else "learned"
        raise InputError(f"learn_positions is True: it has no effect, the checkpoint has {kind} positions")
    learned = {f"{side}_learned_pos": args.learn_positions for side in SIDES}
    cfg = TransformerMosConfig(search_space=space.dumps(), **_routing(args), **learned)
    model = supernet_from(stock, cfg, _orders(args, stock, space), args.expert_noise, args.seed)
    save_checkpoint(supernet_checkpoint(stock.state, model), args.output)
    _tell(args, model)


def _reorder(args: argparse.Namespace) -> None:
    """Write the supernet's checkpoint with its units in order."""
    start()
    from mos_fairseq.checkpoints import build_supernet, read_supernet, save_checkpoint, updates_of
    from mos_fairseq.evaluation.evaluator import SubnetEvaluator
    from mos_fairseq.export.check import check_same_model
    from mos_fairseq.models.trained_parts import train_experts
    from mos_fairseq.warm_start import moves_of, reordered, supernet_orders

    state = read_supernet(args.path)
    model = build_supernet(state)
    if model.cfg.freeze_shared:
        train_experts(model)  # the optimizer has moments of these only
    batches = None if args.data is None else SubnetEvaluator(args.path, args.data, _sentences(args)).batches
    largest, heads = model.get_active_subnet(), has_narrower_attention(model.search_space)
    changed = reordered(state, model, moves_of(model, supernet_orders(largest, batches, heads=heads)))
    names = "the reordered supernet's largest subnet", "that of the checkpoint"
    check_same_model(build_supernet(changed).get_active_subnet(), largest, *names)
    save_checkpoint(changed, args.output)
    what = "neurons and heads" if heads else "neurons (heads share one width, and stay)"
    kept = "with" if changed.get("last_optimizer_state") else "without"
    after = f"{args.path} after {updates_of(state):,} updates"
    print(f"{args.output}: {after}, {what} by importance; {kept} the optimizer's state")
    print(f"to go on: fairseq-train … --restore-file {args.output}, with the other options as before")


def _warm_start_supernet(args: argparse.Namespace, space: SearchSpace) -> bool:
    """Make one out of a supernet; False where the checkpoint is of another model."""
    if os.path.isdir(args.path):
        return False
    check_exists(args.path)
    start()
    from mos_fairseq.checkpoints import is_supernet, read_checkpoint, read_supernet, save_checkpoint
    from mos_fairseq.warm_start import low_rank_supernet, supernet_checkpoint

    if not is_supernet(read_checkpoint(args.path)):
        return False
    for name in ("data", "no_reorder", "learn_positions"):
        if value := getattr(args, name):
            raise InputError(f"{name} is {value}: it has no effect on a supernet, where all stays in its place")
    state = read_supernet(args.path)
    model = low_rank_supernet(state, space, _routing(args), args.seed)
    save_checkpoint(supernet_checkpoint(state, model), args.output)
    _tell(args, model, "each computes what it does in")
    return True


def _warm_start_masked(args: argparse.Namespace, space: SearchSpace) -> None:
    if args.learn_positions:
        raise InputError(f"learn_positions is True: it has no effect on subnets of family {MASKED.name}")
    is_folder = os.path.isdir(args.path)
    if not is_folder:
        check_exists(args.path)
    start()
    from mos_fairseq.checkpoints import save_checkpoint
    from mos_fairseq.files import write_atomically
    from mos_fairseq.models import RobertaMosConfig
    from mos_fairseq.warm_start import (
        Orders,
        check_masked_space,
        masked_batches,
        masked_orders,
        masked_supernet,
        supernet_checkpoint,
    )

    if is_folder:
        from mos_fairseq.warm_start import read_huggingface

        source = read_huggingface(args.path)
    else:
        from mos_fairseq.warm_start import read_roberta

        source = read_roberta(args.path)
    check_masked_space(source.model.subnet, space)
    heads, orders = has_narrower_attention(space), Orders()
    if not args.no_reorder:
        batches = None if args.data is None else masked_batches(source, space, args.data, _sentences(args))
        orders = masked_orders(source.model, batches, heads=heads, channels=has_narrower_embeddings(space))
    cfg = RobertaMosConfig(search_space=space.dumps(), **_routing(args))
    model = masked_supernet(source, cfg, orders, args.expert_noise, args.seed)
    if source.words is not None:
        dictionary = f"{args.output}.dict.txt"
        nspecial = source.model.encoder.dictionary.nspecial
        write_atomically(dictionary, "".join(f"{word} 1\n" for word in source.words[nspecial:]))
        print(f"{dictionary}: its dictionary, for fairseq-preprocess --only-source --srcdict")
    save_checkpoint(supernet_checkpoint(source.state, model), args.output)
    _tell(args, model)


def _routing(args: argparse.Namespace) -> dict[str, Any]:
    return {field.name: getattr(args, field.name) for field in fields(MosOptions)}


def _tell(args: argparse.Namespace, model: Supernet, which: str | None = None) -> None:
    """Say what was made, and how to train it."""
    from mos_fairseq.warm_start.factors import is_cut

    which = which or ("the largest approximates" if is_cut(model.search_space.largest()) else "the largest is")
    print(f"{args.output}: a supernet of {model.search_space.size:,} subnets; {which} {args.path}")
    options = [f"--{name.replace('_', '-')} {value}" for name, value in _routing(args).items() if value]
    options += model.twin.command_options(model.cfg, model.task)
    supernet = f"--task {model.task} --search-space {args.search_space} --arch {model.arch} {' '.join(options)}"
    print(f"to train it: fairseq-train … {supernet} --finetune-from-model {args.output}")


def _sentences(args: argparse.Namespace) -> EvaluationOptions:
    """Return the sentences for importance by gradients."""
    from mos_fairseq.evaluation.options import EvaluationOptions

    return EvaluationOptions(
        valid_subset=args.valid_subset, valid_samples=args.valid_samples, max_tokens=args.max_tokens, seed=args.seed
    )


def _orders(args: argparse.Namespace, stock: StockModel, space: SearchSpace) -> Orders:
    """Return the orders; heads and channels are sorted only if some subnets do not use all of them."""
    from mos_fairseq.evaluation.evaluator import ModelEvaluator
    from mos_fairseq.warm_start import EMBEDDING_FILES, Orders, check_pairs, importance_orders

    if args.no_reorder:
        return Orders()
    learned = all(getattr(stock.args, f"{side}_learned_pos") for side in SIDES)
    movable = args.learn_positions or learned or stock.args.no_token_positional_embeddings
    channels = bool(movable and has_narrower_embeddings(space))
    kinds = {"heads": has_narrower_attention(space), "channels": channels}
    if args.data is None:
        return importance_orders(stock.model, **kinds)
    check_pairs(stock, args.data)
    evaluator = ModelEvaluator(args.path, args.data, _sentences(args), examples=dict.fromkeys(EMBEDDING_FILES))
    return importance_orders(evaluator.model, evaluator.batches, **kinds)
