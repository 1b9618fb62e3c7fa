"""``mos-export``: one subnet of a supernet's checkpoint as a model of its own."""

from __future__ import annotations

import argparse
import json

from mos_fairseq.cli import check_exists, command_parser, start
from mos_fairseq.export import FORMATS, QUANTIZATIONS, ExportOptions, find_format
from mos_fairseq.search_space import resolve_subnet


def get_parser() -> argparse.ArgumentParser:
    """The command line of ``mos-export``."""
    parser = command_parser(
        "mos-export",
        "Write one subnet of a supernet's checkpoint as a plain dense model: no experts, no routers, no "
        "slicing, and the same results.",
        "mos-export --path checkpoints/checkpoint_best.pt --subnet search/best.yaml --output best.pt",
    )
    parser.add_argument("--path", required=True, metavar="CKPT", help="the supernet's checkpoint")
    parser.add_argument(
        "--subnet", required=True, metavar="S", help="largest, smallest, random:SEED, a YAML file, or JSON in braces"
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="the checkpoint (with ctranslate2: the folder) to write"
    )
    names = [known.name for known in FORMATS]
    parser.add_argument(
        "--format",
        choices=[*names, *(known.older_name for known in FORMATS if known.older_name)],
        default=names[0],
        metavar=f"{{{','.join(names)}}}",
        help=f"{'; '.join(f'{known.name}: {known.says}' for known in FORMATS)} (default: %(default)s)",
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
    chosen, options = find_format(args.format), ExportOptions(args.allow_padding, args.quantization, args.data)
    chosen.check_options(options)
    check_exists(args.path)
    start()
    from mos_fairseq.checkpoints import build_supernet, read_supernet, search_space_of, stock_task

    state = read_supernet(args.path)
    space = search_space_of(state)
    chosen.check_family(space.family)
    subnet = resolve_subnet(args.subnet, space)
    chosen.check(subnet, options)
    model = build_supernet(state)
    model.set_active_subnet(subnet)
    twin = model.get_active_subnet()
    chosen.write(state, twin, args.output, options)
    params = sum(parameter.numel() for parameter in twin.parameters())
    if args.json:
        found = {"output": args.output, "format": chosen.name, "params": params, "architecture": subnet.to_dict()}
        print(json.dumps(found))
        return
    print(f"{args.output}: {chosen.name}; a subnet of {params:,} parameters: {subnet.summary()}")
    if chosen.name == "twin":
        words = f"--arch {twin.arch} --subnet '{subnet.key}' --finetune-from-model {args.output}"
        print(f"to fine-tune it: fairseq-train … --task {stock_task(state)} {words}")
