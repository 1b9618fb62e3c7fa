"""``mos-diagnose``: how supernets mix experts for different subnets, and whether the subnets' gradients agree."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mos_fairseq.cli import aligned, check_exists, command_parser, named_paths, start
from mos_fairseq.errors import at_least
from mos_fairseq.evaluation.options import EvaluationOptions
from mos_fairseq.files import make_folder, write_atomically
from mos_fairseq.search_space import SearchSpace, Subnet, resolve_subnet

if TYPE_CHECKING:
    from mos_fairseq.diagnosis import Diagnosis

_COLUMNS = {
    "mixing_distance": "mixing",
    "expert_distance": "experts",
    "cosine": "cosine",
    "lowest_cosine": "lowest",
    "conflicts": "conflicts",
}


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mos-diagnose``."""
    parser = command_parser(
        "mos-diagnose",
        "For each layer of trained supernets: how differently routers mix experts for different subnets "
        "(mixing: total-variation distance), how far experts have diverged (experts: norm of the difference over the "
        "norm), and how well the gradients of different subnets agree in shared weights (cosine: mean over "
        "pairs of subnets; lowest; conflicts: share of pairs below 0).",
        "mos-diagnose data-bin --path neuron=checkpoints/checkpoint_last.pt --output diagnosis\n"
        "mos-diagnose data-text --path checkpoints-bert/checkpoint_last.pt --output d    # masked language models",
    )
    parser.add_argument("data", help="folder made by fairseq-preprocess")
    parser.add_argument(
        "--path", required=True, action="append", metavar="[NAME=]CKPT", help="a supernet's checkpoint; may be repeated"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of diagnosis.json and diagnosis.png")
    parser.add_argument(
        "--num-subnets", type=int, default=6, metavar="N", help="random subnets beside largest, smallest (default: 6)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="seed of random subnets and sentences (default: 1)"
    )
    parser.add_argument("--valid-subset", default="valid", metavar="NAME", help="set of the sentences (default: valid)")
    parser.add_argument(
        "--valid-samples", type=int, default=128, metavar="N", help="number of sentence pairs (default: %(default)s)"
    )
    parser.add_argument(
        "--max-tokens", type=int, default=4000, metavar="N", help="tokens in a batch (default: %(default)s)"
    )
    parser.add_argument("--device", help="device, as in cuda:0 (default: the GPU, otherwise the CPU)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    words = sys.argv[1:] if argv is None else argv
    args = get_parser().parse_args(words)
    at_least(0, num_subnets=args.num_subnets, seed=args.seed)
    paths = named_paths(args.path)
    specs = ["largest", "smallest", *(f"random:{seed}" for seed in range(args.seed, args.seed + args.num_subnets))]
    options = EvaluationOptions(
        valid_subset=args.valid_subset, valid_samples=args.valid_samples, max_tokens=args.max_tokens, seed=args.seed
    )
    for path in paths.values():
        check_exists(path)
    start()
    import torch

    from mos_fairseq.checkpoints import read_supernet
    from mos_fairseq.diagnosis import diagnose, plot_diagnoses
    from mos_fairseq.evaluation.evaluator import SubnetEvaluator
    from mos_fairseq.gap.report import versions

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    for path in paths.values():
        read_supernet(path)  # its error names what the checkpoint holds instead
    found, compared = {}, set[str]()
    for name, path in paths.items():
        evaluator = SubnetEvaluator(path, args.data, options, device)
        subnets = _different(specs, evaluator.space)
        found[name] = diagnose(evaluator, list(subnets))
        compared |= set(subnets.values())
    make_folder(args.output, "output")
    content = {
        "command": shlex.join(["mos-diagnose", *words]),
        "versions": versions(),
        "supernets": paths,
        "subnets": [spec for spec in specs if spec in compared],
        "sentences": asdict(options),
        "layers": {name: [asdict(row) for row in rows] for name, rows in found.items()},
    }
    output = Path(args.output)
    write_atomically(output / "diagnosis.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    plot_diagnoses(found, output / "diagnosis.png")
    print(json.dumps(content["layers"]) if args.json else _text(found, output))


def _different(specs: Sequence[str], space: SearchSpace) -> dict[Subnet, str]:
    """Return the subnets with the first spec of each: the gradients of equal ones agree in any supernet."""
    found: dict[Subnet, str] = {}
    for spec in specs:
        found.setdefault(resolve_subnet(spec, space), spec)
    return found


def _text(found: Mapping[str, Sequence[Diagnosis]], output: Path) -> str:
    tables = []
    for name, rows in found.items():
        cells = [[name, *_COLUMNS.values()]]
        for row in rows:
            values = [getattr(row, field) for field in _COLUMNS]
            cells.append([row.name, *("-" if value is None else f"{value:.3f}" for value in values)])
        tables.append(aligned(cells))
    return "\n\n".join([*tables, f"report: {output / 'diagnosis.json'}, diagnosis.png"])
