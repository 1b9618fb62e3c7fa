"""``mos-warm-start``: make a supernet from a trained fairseq model.

It is the inverse of ``mos-export``, but not called ``mos-import``: ``import`` is a Python keyword, no module's name.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from mos_fairseq.cli import check_exists, command_parser, start
from mos_fairseq.errors import InputError
from mos_fairseq.model_options import FLAGS
from mos_fairseq.mos_options import CHOICES, MosOptions
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.warm_start import MASKED, SIDES, check_family_of, has_narrower_attention

if TYPE_CHECKING:
    from mos_fairseq.evaluation.options import EvaluationOptions
    from mos_fairseq.models import Supernet
    from mos_fairseq.warm_start import Orders, StockModel


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mos-warm-start``."""
    parser = command_parser(
        "mos-warm-start",
        "Make a supernet from a trained fairseq transformer or roberta, or from Hugging Face's BERT or RoBERTa. The "
        "model becomes the largest subnet, with the same results before any training. Neurons and heads (and channels, "
        "with learned positions) are sorted by importance, since a subnet uses the first of them.",
        "mos-warm-start --path transformer.pt --search-space space.yaml --data data-bin --output warm.pt\n"
        "mos-warm-start --path bert-folder --search-space bert.yaml --output warm.pt    # masked language models",
    )
    parser.add_argument(
        "--path",
        required=True,
        metavar="CKPT",
        help="checkpoint of fairseq's own transformer or roberta; or a Hugging Face folder with config.json, "
        "model.safetensors and a vocabulary, whose tokens are written as a dictionary beside the output, FILE.dict.txt",
    )
    parser.add_argument(
        "--search-space",
        required=True,
        metavar="X",
        help="preset or YAML file; its largest choices must be the checkpoint's sizes, its cross-attention spans -1",
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
    parser.add_argument(
        "--max-tokens", type=int, default=4000, metavar="N", help="tokens in a batch (default: %(default)s)"
    )
    parser.add_argument("--no-reorder", action="store_true", help="keep the order of neurons, heads and channels")
    parser.add_argument(
        "--learn-positions",
        action="store_true",
        help="turn sinusoidal positions into learned ones with the same initial values, so that channels can be "
        "reordered: sinusoids are fixed to their channels",
    )
    parser.add_argument(
        "--expert-noise",
        type=float,
        default=0.01,
        metavar="S",
        help="spread of the differences between experts, relative to their weights'; it cancels in the largest subnet "
        "(default: %(default)s)",
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
    args = get_parser().parse_args(argv)
    if args.no_reorder and args.data:
        raise InputError("data is given with --no-reorder, but only reordering needs importance")
    space = SearchSpace.from_spec(args.search_space)
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
    learned = {f"{side}_learned_pos": args.learn_positions for side in SIDES}
    cfg = TransformerMosConfig(search_space=space.dumps(), **_routing(args), **learned)
    model = supernet_from(stock, cfg, _orders(args, stock, space), args.expert_noise, args.seed)
    save_checkpoint(supernet_checkpoint(stock.state, model), args.output)
    _tell(args, model)


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
        orders = masked_orders(source.model, batches, heads=heads)
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


def _tell(args: argparse.Namespace, model: Supernet) -> None:
    """Report the new supernet, and how to train it."""
    print(f"{args.output}: a supernet of {model.search_space.size:,} subnets; the largest is {args.path}")
    options = [f"--{name.replace('_', '-')} {value}" for name, value in _routing(args).items()]
    options += [f"--{name.replace('_', '-')}" for name in FLAGS if getattr(model.cfg, name, False)]
    if (epsilon := getattr(model.cfg, "layer_norm_eps", None)) is not None:
        options += [f"--layer-norm-eps {epsilon} --max-positions {model.cfg.max_positions}"]
    supernet = f"--task {model.task} --search-space {args.search_space} --arch {model.arch} {' '.join(options)}"
    print(f"to train it: fairseq-train … {supernet} --finetune-from-model {args.output}")


def _sentences(args: argparse.Namespace) -> EvaluationOptions:
    """Return the sentences for importance by gradients."""
    from mos_fairseq.evaluation.options import EvaluationOptions

    return EvaluationOptions(
        valid_subset=args.valid_subset, valid_samples=args.valid_samples, max_tokens=args.max_tokens, seed=args.seed
    )


def _orders(args: argparse.Namespace, stock: StockModel, space: SearchSpace) -> Orders:
    """Return the orders; heads are sorted only if some subnets do not use all of them."""
    from mos_fairseq.evaluation.evaluator import ModelEvaluator
    from mos_fairseq.warm_start import Orders, importance_orders

    if args.no_reorder:
        return Orders()
    learned = all(getattr(stock.args, f"{side}_learned_pos") for side in SIDES)
    channels = bool(args.learn_positions or learned or stock.args.no_token_positional_embeddings)
    kinds = {"heads": has_narrower_attention(space), "channels": channels}
    if args.data is None:
        return importance_orders(stock.model, **kinds)
    evaluator = ModelEvaluator(args.path, args.data, _sentences(args))
    return importance_orders(evaluator.model, evaluator.batches, **kinds)
