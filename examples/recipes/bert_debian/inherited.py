"""Accuracies that architectures inherit from supernets, against training alone: alone.md in WORK_DIR.

    python examples/recipes/bert_debian/inherited.py WORK_DIR

Reads rows.jsonl of accuracies.py. For each task, the first table has the accuracy of each architecture, mean over
seeds. The second has bias, MAE, spread and Kendall's tau of each routing against training alone (mean over its seeds),
with 95 % intervals by bootstrap over architectures and the supernets' seeds (evidence.py of examples/studies/sampling).
Then come the mean differences between routings in what is inherited, for each seed, with intervals over test examples.
Losses of masked words have a table and differences alike, with intervals over texts. What is not trained yet is left
out.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from mos_fairseq.errors import InputError
from mos_fairseq.files import write_atomically
from mos_fairseq.jsonl import read_jsonl

sys.path.append(str(Path(__file__).resolve().parents[2] / "studies" / "sampling"))
import evidence  # noqa: E402

SAMPLES = 2000
HEADS = {
    "alone": "alone",
    "inherited": "`{}`",
    "tuned": "`{}`, then alone",
    "taught": "`{}`, then by a teacher",
    "masked": "`{}` on masked words, then alone",
}

Row = dict[str, Any]
Task = tuple[str, str]
"""Name and number of examples."""
Seeds = dict[int, np.ndarray]
"""Accuracies [architectures] by seed."""


def task_of(row: Row) -> Task:
    """What the row's classifier learnt."""
    return row["task"], row["examples"]


def by_seed(rows: list[Row], architectures: list[str]) -> Seeds:
    """Accuracies of the seeds that have all ``architectures``."""
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for row in rows:
        found[row["seed"]][row["subnet"]] = row["accuracy"]
    return {
        seed: np.array([found[seed][name] for name in architectures])
        for seed in sorted(found)
        if len(found[seed]) == len(architectures)
    }


def architecture_table(rows: list[Row], score: str = "accuracy", digits: int = 1) -> list[str]:
    """A line for each architecture: millions of parameters, MFLOPs, latency, scores (mean ± standard deviation over
    seeds)."""
    sources, routings = list(HEADS), list(dict.fromkeys(row["routing"] for row in rows))
    columns = sorted(
        {(row["source"], row["routing"]) for row in rows},
        key=lambda column: (sources.index(column[0]), column[1] != "none", routings.index(column[1])),
    )
    heads = [HEADS[source if score == "accuracy" else "inherited"].format(routing) for source, routing in columns]
    lines = [f"| {', '.join(map(str, task_of(rows[0])))} | parameters | MFLOPs | ms | {' | '.join(heads)} |"]
    lines.append("|---" * (4 + len(heads)) + "|")
    for name in sorted({row["subnet"] for row in rows}):
        mine = [row for row in rows if row["subnet"] == name]
        cells = []
        for column in columns:
            found = [row[score] for row in mine if (row["source"], row["routing"]) == column]
            deviation = f" ± {np.std(found, ddof=1):.{digits}f}" if len(found) > 1 else ""
            cells.append(f"{np.mean(found):.{digits}f}{deviation}" if found else "")
        sizes = mine[0]["params_without_embeddings"] / 1e6, mine[0]["flops_without_output_projection"] / 1e6
        latency = f"{mine[0]['latency_ms']:.1f}" if "latency_ms" in mine[0] else ""
        lines.append(f"| {name} | {sizes[0]:.1f} | {sizes[1]:.0f} | {latency} | {' | '.join(cells)} |")
    return lines


def difference_lines(rows: list[Row], architectures: list[str], digits: int = 1) -> list[str]:
    """Mean difference of each routing to none over the architectures, for each seed that both have. Its 95 % interval
    is over ``parts``, which have the ``weights`` in a row's score. Several seeds tell routings apart where all lie on
    one side of 0."""
    parts: dict[tuple[str, int], dict[str, np.ndarray]] = defaultdict(dict)
    for row in rows:
        parts[row["routing"], row["seed"]][row["subnet"]] = row["parts"]
        weights = row["weights"]
    complete = {
        key: np.mean([found[name] for name in architectures], axis=0)
        for key, found in sorted(parts.items())
        if len(found) == len(architectures)
    }
    lines = []
    for routing in dict.fromkeys(routing for routing, _ in complete if routing != "none"):
        found, sides = [], set()
        for seed in (seed for name, seed in complete if name == routing and ("none", seed) in complete):
            difference = complete[routing, seed] - complete["none", seed]
            draws = np.random.default_rng(1).integers(len(difference), size=(SAMPLES, len(difference)))
            edges = np.percentile(difference[draws].sum(axis=1) / weights[draws].sum(axis=1), [2.5, 97.5])
            mean, low, high = (f"{value:+.{digits}f}" for value in (difference.sum() / weights.sum(), *edges))
            found.append(f"{mean} ({low} to {high}; seed {seed})")
            sides.add(1 if edges[0] > 0 else -1 if edges[1] < 0 else 0)
        if found:
            end = ": no difference found" if len(found) > 1 and sides not in ({1}, {-1}) else ""
            lines.append(f"`{routing}` minus `none`, mean over architectures: {', '.join(found)}{end}")
    return lines


def task_report(rows: list[Row], architectures: list[str]) -> list[str]:
    """The tables of one task."""
    blocks = ["\n".join(architecture_table(rows))]
    alone = by_seed([row for row in rows if row["source"] == "alone"], architectures)
    mine = [row for row in rows if row["source"] == "inherited"]
    inherited = {
        routing: by_seed([row for row in mine if row["routing"] == routing], architectures)
        for routing in dict.fromkeys(row["routing"] for row in mine)
    }
    if alone:
        mean = np.mean(list(alone.values()), axis=0)
        scores = {
            ("accuracy", routing): np.array([[found, mean] for found in seeds.values()])
            for routing, seeds in inherited.items()
            if seeds
        }
        if scores:
            blocks.append(evidence.table(scores))
    return [*blocks, *difference_lines(mine, architectures)]


def report(rows: list[Row], architectures: list[str]) -> str:
    """All tables, in Markdown; ``architectures`` are the names of all, the largest last."""
    rows = [row for row in rows if row.get("source") in HEADS]
    words = [row for row in rows if "bits" in row]
    rows = [row for row in rows if "bits" not in row]
    tasks = dict.fromkeys(map(task_of, rows))
    blocks = [task_report([row for row in rows if task_of(row) == task], architectures) for task in tasks]
    if words:
        blocks.append(["\n".join(architecture_table(words, "bits", 3)), *difference_lines(words, architectures, 3)])
    return "\n\n".join(block for found in blocks for block in found)


def parts_of(work: Path, row: Row) -> Row:
    """What a row's score is the mean of: ``parts``, one for each test example or text, and their ``weights``."""
    name = "-".join(str(row[key]) for key in ("subnet", "routing", "seed"))
    if "bits" in row:
        found = json.loads((work / "masked" / name / "masked.json").read_text())
        return {"parts": np.array(found["bits"]), "weights": np.array(found["words"])}
    file = work / "tuned" / f"{row['task']}-{row['examples']}-{row['source']}-{name}" / "score.json"
    hits = json.loads(file.read_text())["hits"]
    return {"parts": np.array([100.0 * (hit == "1") for hit in hits]), "weights": np.ones(len(hits))}


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    work = Path(sys.argv[1])
    architectures = sorted(path.stem for path in (work / "architectures").glob("a*.yaml"))
    try:
        rows = read_jsonl(work / "rows.jsonl")
    except InputError as error:
        sys.exit(f"error: {error}")
    for row in rows:
        if row.get("source") == "inherited" or "bits" in row:
            row |= parts_of(work, row)
    text = report(rows, architectures)
    write_atomically(work / "alone.md", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
