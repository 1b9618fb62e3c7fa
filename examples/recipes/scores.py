#!/usr/bin/env python3
"""What run.sh measured so far, as a table and in WORK_DIR/scores.json, a row for each recipe, seed and subnet.

    python examples/recipes/scores.py WORK_DIR
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

SUBNETS = ("largest", "random:3", "random:5", "random:7", "smallest")


def bleu_of(log: Path) -> float:
    """From what fairseq-generate printed."""
    found = re.search(r"BLEU\S* = ([\d.]+) ", log.read_text(encoding="utf-8"))
    if found is None:
        sys.exit(f"error: {log}: fairseq-generate printed no BLEU")
    return float(found[1])


def read_rows(work: Path) -> list[dict[str, Any]]:
    """A row for each supernet and subnet whose translations are done."""
    rows = []
    for done in sorted(work.glob("translations-*.done")):
        recipe, seed, subnet = re.fullmatch(r"translations-(.+)-(\d+)-(largest|smallest|random-\d)", done.stem).groups()
        subnet = subnet.replace("-", ":")
        rows.append({"recipe": recipe, "seed": int(seed), "subnet": subnet, "bleu": bleu_of(done.with_suffix(".log"))})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Means over the seeds, a line for each recipe; ``spread`` is the range of all subnets but the largest."""
    lines = [f"| recipe | seeds | {' | '.join(SUBNETS)} | spread |", "|---|---|" + "---|" * (len(SUBNETS) + 1)]
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        scores: dict[str, list[float]] = {subnet: [] for subnet in SUBNETS}
        for row in rows:
            if row["recipe"] == recipe:
                scores[row["subnet"]].append(row["bleu"])
        if not all(scores.values()):
            continue
        means = [statistics.fmean(found) for found in scores.values()]
        cells = " | ".join(f"{mean:.1f}" for mean in means)
        lines.append(f"| {recipe} | {len(scores['largest'])} | {cells} | {max(means[1:]) - min(means[1:]):.1f} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Command line."""
    if len(argv) != 1:
        sys.exit(__doc__)
    work = Path(argv[0])
    rows = read_rows(work)
    write_atomically(work / "scores.json", json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
