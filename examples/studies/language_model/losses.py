#!/usr/bin/env python3
"""Losses that run.sh measured, as a table and in WORK_DIR/losses.json, a row for each routing, seed and subnet.

python examples/studies/language_model/losses.py WORK_DIR SEED…
"""

from __future__ import annotations

import json
import logging
import re
import statistics
import sys
from pathlib import Path
from typing import Any

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

from mos_fairseq.files import write_atomically  # noqa: E402
from mos_fairseq.jsonl import read_jsonl  # noqa: E402

ROUTINGS = ("none", "layer", "neuron")


def loss_of(log: Path) -> float:
    """Return bits a token from fairseq-eval-lm's output."""
    found = re.search(r"Loss \(base 2\): ([\d.]+)", log.read_text(encoding="utf-8"))
    if found is None:
        sys.exit(f"error: {log}: fairseq-eval-lm printed no loss")
    return float(found[1])


def read_rows(work: Path, seeds: list[str]) -> list[dict[str, Any]]:
    """A row for each supernet and subnet."""
    costs = read_jsonl(work / "costs.jsonl")
    return [
        {
            "routing": routing,
            "seed": int(seed),
            "subnet": cost["subnet"],
            "params": cost["params"],
            "loss": loss_of(work / f"loss-{routing}-{seed}-{cost['subnet'].replace(':', '-')}.log"),
        }
        for seed in seeds
        for routing in ROUTINGS
        for cost in costs
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Means over the seeds, a line for each subnet."""
    lines = [f"| subnet | parameters | {' | '.join(f'`{routing}`' for routing in ROUTINGS)} |", "|---|---|---|---|---|"]
    for subnet, params in dict.fromkeys((row["subnet"], row["params"]) for row in rows):
        losses = {routing: [] for routing in ROUTINGS}
        for row in rows:
            if row["subnet"] == subnet:
                losses[row["routing"]].append(row["loss"])
        means = " | ".join(f"{statistics.fmean(losses[routing]):.3f}" for routing in ROUTINGS)
        lines.append(f"| {subnet} | {params:,} | {means} |")
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    work = Path(sys.argv[1])
    rows = read_rows(work, sys.argv[2:])
    write_atomically(work / "losses.json", "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    print(table(rows))


if __name__ == "__main__":
    main()
