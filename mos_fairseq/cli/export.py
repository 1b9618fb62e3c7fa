"""``mos-export``: one subnet of a supernet's checkpoint as a model of its own."""

from __future__ import annotations

import argparse
import json

from mos_fairseq import export
from mos_fairseq.cli import check_exists, command_parser, start
from mos_fairseq.errors import InputError
from mos_fairseq.export import FORMATS, QUANTIZATIONS
from mos_fairseq.search_space import resolve_subnet


def get_parser() -> argparse.ArgumentParser:
    """The command line of ``mos-export``."""
    parser = command_parser(
        "mos-export",
        "Write one subnet of a supernet's checkpoint as a plain dense model: no experts, no routers, no "
        "slicing, and the same translations.",
        "mos-export --path checkpoints/checkpoint_best.pt --subnet search/best.yaml --output best.pt",
    )
    parser.add_argument("--path", required=True, metavar="CKPT", help="the supernet's checkpoint")
    parser.add_argument(
        "--subnet", required=True, metavar="S", help="largest, smallest, random:SEED, a YAML file, or JSON in braces"
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="the checkpoint (with ctranslate2: the folder) to write"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="transformer_subnet: any subnet, for fairseq with this plugin and the stock translation task; "
        "fairseq: its own transformer, which needs no plugin, for subnets it can express; ctranslate2: a model of "
        "that inference engine, for subnets it can express: it translates an empty line as an empty one, and cuts a "
        "hypothesis at the length limit, where fairseq ends it (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-padding",
        action="store_true",
        help="with --format fairseq: make layers of unequal FFN sizes or heads equal by adding zeros; the same "
        "translations, at the cost of the padded sizes",
    )
    parser.add_argument(
        "--quantization", choices=QUANTIZATIONS, help="with --format ctranslate2: of the weights (default: none)"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="with --format ctranslate2: folder of the dictionaries (default: the supernet's training data)",
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(argv)
    _check_options(args)
    check_exists(args.path)
    start()
    state = export.read_supernet(args.path)
    model = export.build_supernet(state)
    model.set_active_subnet(resolve_subnet(args.subnet, model.search_space))
    twin = model.get_active_subnet()
    if args.format == "ctranslate2":
        words = export.read_vocabularies(state, args.data)
        export.save_ctranslate2(twin, words, args.output, args.quantization)
    elif args.format == "fairseq":
        export.save_checkpoint(export.stock_checkpoint(state, twin, args.allow_padding), args.output)
    else:
        export.save_checkpoint(export.twin_checkpoint(state, twin), args.output)
    params = sum(parameter.numel() for parameter in twin.parameters())
    if args.json:
        found = {"output": args.output, "format": args.format, "params": params, "architecture": twin.subnet.to_dict()}
        print(json.dumps(found))
        return
    print(f"{args.output}: {args.format}; a subnet of {params:,} parameters: {twin.subnet.summary()}")
    if args.format == "transformer_subnet":
        options = f"--arch transformer_subnet --subnet '{twin.subnet.key}' --finetune-from-model {args.output}"
        print(f"to fine-tune it: fairseq-train … --task translation {options}")


def _check_options(args: argparse.Namespace) -> None:
    for option, wanted in (("allow_padding", "fairseq"), ("quantization", "ctranslate2"), ("data", "ctranslate2")):
        if getattr(args, option) and args.format != wanted:
            raise InputError(f"{option} is given with format {args.format}: it belongs to {wanted}")
