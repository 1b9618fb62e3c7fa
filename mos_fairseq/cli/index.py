"""``mos``: the commands of this package, and what each is for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from importlib import import_module

from mos_fairseq.cli import command_parser

COMMANDS = {
    "mos-cost": ("cost", "parameters and FLOPs of subnets"),
    "mos-latency": ("latency_options", "measure latency, learn to predict it, predict it"),
    "mos-search": ("search_options", "the best subnets of a supernet within budgets"),
    "mos-export": ("export", "a subnet as a model of its own"),
    "mos-finetune": ("finetune", "train a subnet on, alone, and export it"),
    "mos-gap": ("gap", "inherited scores against those of training alone"),
    "mos-diagnose": ("diagnose", "what routers and gradients do in a supernet"),
    "mos-warm-start": ("warm_start", "a supernet out of a trained model"),
    "mos-benchmark": ("benchmark", "time and memory against plain weight sharing and stock fairseq"),
}
"""Each command, in the order in which one meets them: the module with its parser, and what it does."""


def parsers() -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands, without torch."""
    for module, _ in COMMANDS.values():
        yield import_module(f"mos_fairseq.cli.{module}").get_parser()


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = command_parser(
        "mos",
        "Lists the commands of mos_fairseq. Each has --help. fairseq-train --user-dir mos_fairseq trains supernets.",
        "mos-search --help",
    )
    parser.parse_args(argv)
    width = max(map(len, COMMANDS))
    for name, (_, does) in COMMANDS.items():
        print(f"{name:{width}}  {does}")
