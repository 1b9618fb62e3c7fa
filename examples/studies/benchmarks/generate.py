#!/usr/bin/env python3
"""fairseq-generate with an exported subnet, and with the very same weights in stock fairseq's transformer, in turn.

    python examples/studies/benchmarks/generate.py DATA CHECKPOINT OUTPUT_DIR [--subnet S] [--rounds N] [OPTIONS…]

CHECKPOINT is a supernet's; its subnet S (default: the largest that attends to the last encoder layer) is exported in
both formats and translates the test set N times (6). Prints the seconds that fairseq-generate reports (without
loading), the median ratio with a 95 % interval, and how many hypotheses are the same; OUTPUT_DIR/generate.json holds
all of it. OPTIONS are those of fairseq-generate.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import statistics
import subprocess
import sys
from pathlib import Path

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

import mos_fairseq  # noqa: E402
from mos_fairseq.benchmark.timing import ratio  # noqa: E402
from mos_fairseq.checkpoints import read_supernet  # noqa: E402
from mos_fairseq.errors import InputError  # noqa: E402
from mos_fairseq.files import write_atomically  # noqa: E402
from mos_fairseq.latency import machine  # noqa: E402
from mos_fairseq.search_space import SearchSpace  # noqa: E402

FORMATS = {"transformer": "fairseq", "exported subnet": "transformer_subnet"}
DEFAULTS = ["--beam", "4", "--max-len-a", "1.2", "--max-len-b", "10", "--max-tokens", "6000"]


def widest(checkpoint: str) -> str:
    """Return the largest subnet whose cross-attention reads the last encoder layer only."""
    try:
        largest = SearchSpace.from_spec(read_supernet(checkpoint)["cfg"]["model"]["search_space"]).largest()
    except InputError as error:
        sys.exit(f"error: {error}")
    return largest.replace(decoder_arbitrary_ende_attn=(-1,) * largest.decoder_layers).key


def export(checkpoint: str, subnet: str, output: Path) -> dict[str, Path]:
    """Both exports of a subnet."""
    paths = {name: output / f"{kind}.pt" for name, kind in FORMATS.items()}
    for name, kind in FORMATS.items():
        command = ["mos-export", "--path", checkpoint, "--subnet", subnet, "--format", kind]
        run([*command, "--output", str(paths[name])])
    return paths


def run(command: list[str]) -> str:
    """Output of a command; ends with its last line if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit(f"error: {command[0]} is not on the PATH: activate the environment where mos_fairseq is installed")
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        sys.exit(said[-1] if said else f"error: {command[0]} ended with status {done.returncode}")
    return done.stdout + done.stderr


def translate(data: str, path: Path, options: list[str]) -> tuple[float, list[str]]:
    """(seconds, hypotheses) of one fairseq-generate."""
    plugin = ["--user-dir", mos_fairseq.__path__[0]]  # without it fairseq reads no checkpoint under torch >= 2.6
    text = run(["fairseq-generate", data, *plugin, "--task", "translation", "--path", str(path), *DEFAULTS, *options])
    said = re.search(r"Translated [\d,]+ sentences \(([\d,]+) tokens\) in [\d.]+s \(.*, ([\d.]+) tokens/s\)", text)
    assert said is not None, text[-2000:]
    seconds = int(said[1].replace(",", "")) / float(said[2])  # its seconds are rounded to tenths
    lines = [line.split("\t") for line in text.splitlines() if line.startswith("H-")]
    return seconds, [words for _, _, words in sorted(lines, key=lambda line: int(line[0][2:]))]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("checkpoint")
    parser.add_argument("output", type=Path)
    parser.add_argument("--subnet", metavar="S", help="as for mos-export")
    parser.add_argument("--rounds", type=int, default=6)
    args, options = parser.parse_known_args()
    if args.rounds < 1:
        sys.exit(f"error: rounds is {args.rounds}: allowed are whole numbers from 1")
    args.output.mkdir(parents=True, exist_ok=True)
    paths = export(args.checkpoint, args.subnet or widest(args.checkpoint), args.output)
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    hypotheses: dict[str, list[str]] = {}
    for turn in range(args.rounds):
        for name in list(paths) if turn % 2 else reversed(paths):
            taken, hypotheses[name] = translate(args.data, paths[name], options)
            seconds[name].append(taken)
            print(f"round {turn + 1}: {name} {taken:.2f} s", flush=True)
    stock, ours = (hypotheses[name] for name in FORMATS)
    found = {
        "options": [*DEFAULTS, *options],
        "seconds": seconds,
        **ratio(seconds["exported subnet"], seconds["transformer"]),
        "sentences": len(stock),
        "equal_hypotheses": sum(a == b for a, b in zip(stock, ours, strict=True)),
        "machine": machine(),
    }
    write_atomically(args.output / "generate.json", json.dumps(found, indent=1) + "\n")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(", ".join(f"{name} {value:.2f} s" for name, value in medians.items()))
    print(f"ratio {found['ratio']:.3f} {found['interval']}, ", end="")
    print(f"{found['equal_hypotheses']} of {found['sentences']} hypotheses equal")


if __name__ == "__main__":
    main()
