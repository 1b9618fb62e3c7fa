"""``mos-export``: write one subnet of a supernet's checkpoint as a model."""

from __future__ import annotations

import argparse
import json

from mos_fairseq.cli import check_exists, check_output, command_parser, start, warn
from mos_fairseq.errors import InputError
from mos_fairseq.export import FORMATS, QUANTIZATIONS, ExportOptions, find_format


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mos-export``."""
    parser = command_parser(
        "mos-export",
        "Write one subnet of a supernet's checkpoint as a plain dense model: no experts, no routers, no "
        "slicing, and the same results.",
        "mos-export --path checkpoints/checkpoint_best.pt --subnet search/best.yaml --output best.pt\n"
        "mos-export --path tuned-bert/checkpoint_best.pt --format huggingface --output hf    # masked language models",
    )
    parser.add_argument(
        "--path",
        required=True,
        metavar="CKPT",
        help="the supernet's checkpoint; or the checkpoint of one fine-tuned or calibrated subnet (a static twin)",
    )
    parser.add_argument(
        "--subnet",
        metavar="S",
        help="subnet of a supernet: largest, smallest, random:SEED, controller (of --subnet-sampling controller), a "
        "YAML file, or JSON in braces",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="checkpoint to write (with ctranslate2 and huggingface: the folder)",
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
        help="with --format fairseq and huggingface: pad layers of unequal FFN sizes or heads with zeros to equal "
        "sizes; the results stay the same, at the cost of the padded sizes",
    )
    parser.add_argument(
        "--quantization", choices=QUANTIZATIONS, help="with --format ctranslate2: weights' type (default: unchanged)"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="with --format ctranslate2 and huggingface: folder of the dictionaries (default: the training data)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="FILE",
        help="with --format huggingface: tokenizer that split the text into words, a SentencePiece unigram model or a "
        "tokenizer.json of Hugging Face (default: words are separated by spaces)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(argv)
    options = ExportOptions(args.allow_padding, args.quantization, args.data, args.tokenizer)
    chosen = find_format(args.format)
    chosen.check_options(options)
    check_exists(args.path)
    start()
    from mos_fairseq.checkpoints import (
        build_supernet,
        build_twin,
        is_twin,
        read_model,
        search_space_of,
        stock_task,
        subnet_of,
    )

    check_output(args.output, path=args.path, tokenizer=args.tokenizer)
    state = read_model(args.path)
    if is_twin(state):
        if args.subnet is not None or chosen.name == "twin":
            given = f"subnet is {args.subnet}" if args.subnet is not None else "format is twin"
            raise InputError(f"{given}: {args.path} is of one subnet, a static twin already")
        twin = build_twin(state)
        subnet = twin.subnet
        chosen.check_family(subnet.family)
        chosen.check(subnet, options)
    else:
        if args.subnet is None:
            raise InputError(f"subnet is not given: {args.path} is a supernet; choose a subnet with --subnet")
        space = search_space_of(state)
        chosen.check_family(space.family)
        subnet = subnet_of(state, args.subnet)
        chosen.check(subnet, options)
        model = build_supernet(state)
        model.set_active_subnet(subnet)
        twin = model.get_active_subnet()
    chosen.write(state, twin, args.output, options)
    params = sum(parameter.numel() for parameter in twin.parameters())
    layers = [layer for layer in subnet.all_layers if layer.rank_pays]
    if chosen.name != "twin" and layers:
        factors = params
        params += sum(2 * (layer.matrix_size - layer.factors_size) for layer in layers)
        warn(f"{chosen.name} has matrices only: products of factors make {params:,} parameters of {factors:,}")
    if args.json:
        found = {"output": args.output, "format": chosen.name, "params": params, "architecture": subnet.to_dict()}
        print(json.dumps(found))
        return
    print(f"{args.output}: {chosen.name}; a subnet of {params:,} parameters: {subnet.summary()}")
    if chosen.name == "twin":
        task = stock_task(state)
        options = "".join(f" {option}" for option in twin.command_options(twin.cfg, task))
        words = f"--arch {twin.arch} --subnet '{subnet.key}'{options} --finetune-from-model {args.output}"
        print(f"to fine-tune it: fairseq-train … --task {task} {words}")
