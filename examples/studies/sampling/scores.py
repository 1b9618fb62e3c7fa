#!/usr/bin/env python3
"""Collect run.sh's results so far in a table and WORK_DIR/scores.json, a row for each recipe, seed and subnet.

    python examples/studies/sampling/scores.py WORK_DIR [ROWS.json]

With ROWS.json, the rows are added to that file, and the table has all of its rows.
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

Row = dict[str, Any]


def bleu_of(log: Path) -> float:
    """Return BLEU from fairseq-generate's output."""
    found = re.search(r"BLEU\S* = ([\d.]+) ", log.read_text(encoding="utf-8"))
    if found is None:
        sys.exit(f"error: {log}: fairseq-generate printed no BLEU")
    return float(found[1])


def losses_of(log: Path) -> dict[str, float]:
    """Return the loss of each subnet in bits a token, by its name without colons, from fairseq-validate's output."""
    if not log.with_suffix(".done").exists():
        return {}
    row = json.loads(log.read_text(encoding="utf-8").rsplit("| test | ", 1)[1].splitlines()[0])
    start = "test_nll_loss_"
    return {name.removeprefix(start): float(value) for name, value in row.items() if name.startswith(start)}


def read_rows(work: Path) -> list[Row]:
    """Return a row for each supernet and subnet with finished translations."""
    rows = []
    for done in sorted(work.glob("translations-*.done")):
        recipe, seed, subnet = re.fullmatch(r"translations-(.+?)-(\d+)-(.+)", done.stem).groups()
        subnet = subnet.replace("-", ":")
        row = {"recipe": recipe, "seed": int(seed), "subnet": subnet, "bleu": bleu_of(done.with_suffix(".log"))}
        if losses := losses_of(work / f"losses-{recipe}-{seed}.log"):
            row["loss"] = losses[subnet.replace(":", "")]
        rows.append(row)
    return rows


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """All rows, each recipe, seed and subnet once: the new one where there are two."""
    rows = {(row["recipe"], row["seed"], row["subnet"]): row for row in [*old, *new]}
    return [rows[key] for key in sorted(rows)]


def table(rows: list[Row], score: str = "bleu", digits: int = 1) -> str:
    """Means over the seeds (+- their standard deviation), a line for each recipe; ``spread`` is the range of the means
    of all subnets but the largest. Rows without the score are left out."""
    rows = [row for row in rows if score in row]
    names = sorted({row["subnet"] for row in rows} - {"largest", "smallest"})
    names = ["largest", *names, "smallest"]
    lines = [f"| recipe | seeds | {' | '.join(names)} | spread |", "|---|---|" + "---|" * (len(names) + 1)]
    for recipe in sorted({row["recipe"] for row in rows}):
        scores: dict[str, list[float]] = {name: [] for name in names}
        for row in rows:
            if row["recipe"] == recipe:
                scores[row["subnet"]].append(row[score])
        if not all(scores.values()):
            continue
        means = [statistics.fmean(found) for found in scores.values()]
        cells = " | ".join(_cell(found, digits) for found in scores.values())
        spread = max(means[1:]) - min(means[1:])
        lines.append(f"| {recipe} | {len(scores['largest'])} | {cells} | {spread:.{digits}f} |")
    return "\n".join(lines)


def _cell(found: list[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
    return f"{statistics.fmean(found):.{digits}f}{deviation}"


def main(argv: list[str]) -> None:
    """Command line."""
    if len(argv) not in (1, 2):
        sys.exit(__doc__)
    work, *files = map(Path, argv)
    rows = read_rows(work)
    write_atomically(work / "scores.json", json.dumps(rows, indent=1) + "\n")
    for file in files:
        rows = merged(json.loads(file.read_text(encoding="utf-8")), rows)
        write_atomically(file, "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    print(table(rows))
    if any("loss" in row for row in rows):
        print(f"\nThe loss, in bits a token:\n\n{table(rows, 'loss', 3)}")


if __name__ == "__main__":
    main(sys.argv[1:])
