"""``mos-benchmark``: time and memory of supernets, compared with plain weight sharing and stock fairseq."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_fairseq.benchmark import FAMILIES, SUITES, SpeedOptions
from mos_fairseq.cli import command_parser, start
from mos_fairseq.errors import InputError
from mos_fairseq.files import make_folder, write_atomically
from mos_fairseq.progress import progress
from mos_fairseq.search_space import SearchSpace, check_family

if TYPE_CHECKING:
    from mos_fairseq.benchmark import Section, Variants

_HELP = {
    "vocab_size": "size of the dictionary",
    "tokens": "target tokens of a training batch, approximately",
    "length": "tokens of a sentence",
    "threads": "torch's threads (default: torch's own choice)",
    "repeats": "number of rounds that count",
    "device": "torch's name of the device, as in cuda:0; on a GPU, CUDA events measure the time",
}


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mos-benchmark``."""
    parser = command_parser(
        "mos-benchmark",
        "Time and memory of supernets, compared in turn in one process with plain weight sharing and "
        "stock fairseq's transformer, for translation. On a busy machine, trust the ratios, not the milliseconds.",
        "mos-benchmark --search-space wmt14_en_de --vocab-size 32000 --suite train,decode --threads 1 "
        "--output benchmark",
    )
    parser.add_argument("--search-space", required=True, metavar="X", help="preset or YAML file")
    parser.add_argument(
        "--suite", default="all", metavar="S", help=f"{', '.join(SUITES)}, several with commas, or all (the default)"
    )
    for option in fields(SpeedOptions):
        known = "" if option.default is None else f" (default: {option.default})"
        name = f"--{option.name.replace('_', '-')}"
        kind, metavar = (str, "X") if isinstance(option.default, str) else (int, "N")
        text = _HELP[option.name] + known
        parser.add_argument(name, default=option.default, help=text, type=kind, metavar=metavar)
    parser.add_argument("--output", metavar="DIR", help="folder for benchmark.json and a plot of each suite")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(argv)
    options = SpeedOptions(**{option.name: getattr(args, option.name) for option in fields(SpeedOptions)})
    names = list(SUITES) if args.suite == "all" else [name.strip() for name in args.suite.split(",")]
    for name in names:
        if name not in SUITES:
            known = ", ".join(SUITES)
            raise InputError(f"suite is {args.suite}: allowed are {known}, several with commas, or all alone")
    if len(set(names)) < len(names):
        raise InputError(f"suite is {args.suite}: each is allowed once")
    space = SearchSpace.from_spec(args.search_space)
    check_family("mos-benchmark", FAMILIES, "the search space", space.family)
    start()
    from mos_fairseq.benchmark import Variants, plot_suite
    from mos_fairseq.latency import machine
    from mos_fairseq.modules import kernels

    variants = Variants(space, options)
    _ = variants.stock_space  # fail early on sizes that cannot be compared
    if args.output is not None:
        make_folder(args.output, "output")
    report: dict[str, Any] = {
        "search_space": variants.space.to_dict(),
        "options": asdict(options),
        "suites": {},
    }
    for name in names:
        sections = _run(name, variants, quiet_table=args.json)
        report["suites"][name] = [section.to_dict() for section in sections]
        report |= {"machine": machine(options.device, options.threads), "kernels": kernels.policy().to_dict()}
        if args.output is not None:
            write_atomically(Path(args.output) / "benchmark.json", json.dumps(report, indent=1) + "\n")
            plot_suite(name, sections, Path(args.output) / f"{name}.png")
    if args.json:
        print(json.dumps(report))


def _run(name: str, variants: Variants, quiet_table: bool) -> list[Section]:
    from mos_fairseq.benchmark import run_suite

    sections = []
    with progress(unit="round", desc=name, leave=False, disable=None) as bar:
        for section in run_suite(name, variants, bar.update):
            sections.append(section)
            if not quiet_table:
                bar.clear()
                print(_table(section), flush=True)
    return sections


def _table(section: Section) -> str:
    lines = [section.title]
    for row in section.rows():
        cells = [f"  {row['variant']:24s}"]
        cells.append(f"{row['peak_mib']:10.1f} MiB" if "peak_mib" in row else f"{row['median_ms']:10.2f} ms")
        if "parameters" in row:
            cells.append(f"{row['parameters'] / 1e6:.2f} M parameters")
        if "expected_mib" in row:
            cells.append(f"(expected {row['expected_mib']:.0f})")
        if "tokens_per_second" in row:
            cells.append(f"{row['tokens_per_second']:9.0f} tokens/s")
        if "ratio" in row:
            cells.append(f"x {row['ratio']:.3f}" + _interval(row.get("interval")))
        if "target" in row:
            cells.append(f"(target {row['target']:.2f})")
        lines.append("  ".join(cells))
    lines += [f"  {name}: skipped, {reason}" for name, reason in section.skipped.items()]
    return "\n".join(lines)


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
