"""``mos-export``: one subnet of a supernet's checkpoint as a model of its own."""

from __future__ import annotations

import argparse

from mos_fairseq.errors import InputError
from mos_fairseq.export import build_supernet, read_supernet, save_checkpoint, stock_checkpoint, twin_checkpoint
from mos_fairseq.search_space import resolve_subnet

FORMATS = ("transformer_subnet", "transformer")


def get_parser() -> argparse.ArgumentParser:
    """The command line of ``mos-export``."""
    parser = argparse.ArgumentParser(
        prog="mos-export",
        description="Write one subnet of a supernet's checkpoint as a plain dense model: no experts, no routers, no "
        "slicing, and the same translations.",
        allow_abbrev=False,
    )
    parser.add_argument("--path", required=True, metavar="CKPT", help="the supernet's checkpoint")
    parser.add_argument(
        "--subnet", required=True, metavar="S", help="largest, smallest, random:SEED, a YAML file, or JSON in braces"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the checkpoint to write")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="transformer_subnet: any subnet, for fairseq with this plugin and the stock translation task; "
        "transformer: fairseq's own model, which needs no plugin, for subnets it can express (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-padding",
        action="store_true",
        help="with --format transformer: make layers of unequal FFN sizes or heads equal by adding zeros; the same "
        "translations, at the cost of the padded sizes",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(argv)
    if args.allow_padding and args.format != "transformer":
        raise InputError(f"allow_padding with format {args.format}: only transformer needs padding")
    state = read_supernet(args.path)
    model = build_supernet(state)
    model.set_active_subnet(resolve_subnet(args.subnet, model.search_space))
    twin = model.get_active_subnet()
    if args.format == "transformer":
        checkpoint = stock_checkpoint(state, twin, args.allow_padding)
    else:
        checkpoint = twin_checkpoint(state, twin)
    save_checkpoint(checkpoint, args.output)
    params = sum(parameter.numel() for parameter in twin.parameters())
    print(f"{args.output}: {args.format}, {params:,} parameters: {twin.subnet.summary()}")
