"""``mos``: list the commands of this package and their purposes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import import_module

from mos_fairseq.cli import command_parser

COMMANDS = {
    "mos-cost": ("cost", "count parameters and FLOPs of subnets"),
    "mos-latency": ("latency_options", "measure latency, fit a predictor, predict"),
    "mos-search": ("search_options", "find the best subnets of a supernet within budgets"),
    "mos-export": ("export", "write a subnet as a model"),
    "mos-finetune": ("finetune", "train a subnet on, alone, and export it"),
    "mos-gap": ("gap", "compare inherited scores with scores of training alone"),
    "mos-diagnose": ("diagnose", "show what routers and gradients do in a supernet"),
    "mos-warm-start": ("warm_start", "make a supernet from a trained model"),
    "mos-benchmark": ("benchmark", "compare time and memory with plain weight sharing and stock fairseq"),
}
"""Each command, in the usual order of use: the module with its parser, and its purpose."""


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of all commands, without torch."""
    for module, _ in COMMANDS.values():
        yield import_module(f"mos_fairseq.cli.{module}").get_parser()


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = command_parser(
        "mos",
        "List the commands of mos_fairseq. Each has --help. fairseq-train --user-dir mos_fairseq trains supernets.",
        "mos-search --help",
    )
    parser.parse_args(argv)
    width = max(map(len, COMMANDS))
    for name, (_, does) in COMMANDS.items():
        print(f"{name:{width}}  {does}")
