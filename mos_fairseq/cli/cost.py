"""``mos-cost``: parameters and FLOPs of subnets."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields

from mos_fairseq.cli import add_options, aligned, command_parser
from mos_fairseq.cost import Cost, CostOptions, subnet_cost
from mos_fairseq.errors import InputError
from mos_fairseq.search_space import Family, SearchSpace, check_options, resolve_subnet, split_specs

_HELP = {
    "src_len": "source tokens of the counted forward pass",
    "tgt_len": "target tokens of the counted forward pass",
    "vocab_size": "size of the (source) dictionary; without it, embeddings and output projection are not counted",
    "tgt_vocab_size": "size of the target dictionary, if it differs from the source's",
    "max_source_positions": "number of learned positions in the encoder",
    "max_target_positions": "number of learned positions in the decoder",
    "max_positions": "number of positions of a masked language model",
}


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mos-cost``."""
    parser = command_parser(
        "mos-cost",
        "Exact parameters and FLOPs (2 per multiply-accumulate, one sentence) of subnets, without "
        "building them. Experts and routers never count: a subnet is a dense Transformer.",
        "mos-cost --search-space wmt14_en_de --subnet largest,smallest,random:7 --vocab-size 32000 "
        "--share-all-embeddings\n"
        "mos-cost --search-space bert_bottleneck --vocab-size 30522 --src-len 128    # masked language models",
    )
    parser.add_argument("--search-space", required=True, metavar="X", help="preset or YAML file of the search space")
    parser.add_argument(
        "--subnet",
        default="largest,smallest",
        metavar="S",
        help="subnets, separated by commas: largest, smallest, random:SEED, a YAML file (default: %(default)s)",
    )
    add_options(parser, CostOptions, _HELP)
    parser.add_argument("--json", action="store_true", help="one JSON object per subnet and line")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(argv)
    options = CostOptions(**{option.name: getattr(args, option.name) for option in fields(CostOptions)})
    space = SearchSpace.from_spec(args.search_space)
    check_options(options, space.family)
    _check_positions(options, space.family)
    subnets = {spec: resolve_subnet(spec, space) for spec in split_specs(args.subnet)}
    costs = {spec: subnet_cost(subnet, options) for spec, subnet in subnets.items()}
    if args.json:
        for spec, subnet in subnets.items():
            print(json.dumps({"subnet": spec} | costs[spec].to_dict() | {"architecture": subnet.to_dict()}))
    else:
        _print_table(costs, options)


def _check_positions(options: CostOptions, family: Family) -> None:
    """Raise InputError if a number of positions is typed that are not learned. A model's configuration has all of them,
    so :class:`CostOptions` allows that."""
    for stack in family.stacks:
        if (value := options.positions(stack)) != getattr(CostOptions, stack.positions):
            if not stack.learned_pos(options):
                learned = f"{stack.name}_learned_pos"
                raise InputError(f"{stack.positions} is {value}: it has no effect without {learned}")


def _print_table(costs: dict[str, Cost], options: CostOptions) -> None:
    header = ("subnet", *(field.name for field in fields(Cost)))
    rows = [(spec, *("-" if v is None else f"{v:,}" for v in cost.to_dict().values())) for spec, cost in costs.items()]
    print(aligned([header, *rows]))
    if options.vocab_size is None:
        print("(-: depends on the dictionary, give --vocab-size)")
