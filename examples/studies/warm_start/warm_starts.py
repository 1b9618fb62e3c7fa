#!/usr/bin/env python3
"""Supernets of one trained transformer: are the largest subnet's translations its own, and what do others lose?

    python examples/studies/warm_start/warm_starts.py DATA WORK_DIR NAME…

WORK_DIR holds NAME.pt (of mos-warm-start), and what fairseq-generate printed for the transformer and each NAME
(``translations-of-….log``). Prints a table of losses on the test set, in bits a token; warm_starts.json holds it too.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from pathlib import Path

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

from mos_fairseq.errors import InputError  # noqa: E402
from mos_fairseq.evaluation.evaluator import EvaluationOptions, SubnetEvaluator  # noqa: E402
from mos_fairseq.files import write_atomically  # noqa: E402
from mos_fairseq.search_space import SearchSpace, Subnet, resolve_subnet  # noqa: E402


def subnets(space: SearchSpace) -> dict[str, list[Subnet]]:
    """Groups of subnets, whose mean loss is a column."""
    largest, smallest = space.largest(), space.smallest()
    depth = smallest.decoder_layers
    fewer = {"decoder_layers": depth}
    for name in ("ffn_embed_dim", "attention_heads", "ende_attention_heads", "arbitrary_ende_attn"):
        fewer[f"decoder_{name}"] = getattr(largest, f"decoder_{name}")[:depth]
    thin = {
        f"{side}_ffn_embed_dim": (min(getattr(space, f"{side}_ffn_embed_dim")),) * getattr(largest, f"{side}_layers")
        for side in ("encoder", "decoder")
    }
    return {
        "largest": [largest],
        "smallest FFNs": [largest.replace(**thin)],
        "fewest decoder layers": [largest.replace(**fewer)],
        "random:1 to 20": [resolve_subnet(f"random:{seed}", space) for seed in range(1, 21)],
        "smallest": [smallest],
    }


def hypotheses(log: Path) -> dict[str, str]:
    """Label and tokens of every hypothesis that fairseq-generate printed."""
    lines = [line.split("\t") for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("H-")]
    return {label: words for label, _, words in lines}


def main() -> None:
    """Entry point."""
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    data, work, names = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    expected = hypotheses(work / "translations-of-transformer.log")
    rows = {}
    for name in names:
        found = hypotheses(work / f"translations-of-{name}.log")
        evaluator = SubnetEvaluator(str(work / f"{name}.pt"), data, EvaluationOptions(valid_subset="test"))
        groups = subnets(evaluator.space)
        rows[name] = {
            "equal_hypotheses": sum(found.get(label) == words for label, words in expected.items()),
            "hypotheses": len(expected),
            "loss": {
                group: statistics.fmean(evaluator.evaluate(subnet) for subnet in members)
                for group, members in groups.items()
            },
        }
    write_atomically(work / "warm_starts.json", json.dumps(rows, indent=2) + "\n")
    titles = list(next(iter(rows.values()))["loss"])
    print(f"| supernet | equal hypotheses | {' | '.join(titles)} |\n|{'---|' * (len(titles) + 2)}")
    for name, row in rows.items():
        losses = " | ".join(f"{row['loss'][title]:.3f}" for title in titles)
        print(f"| {name} | {row['equal_hypotheses']} of {row['hypotheses']} | {losses} |")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
