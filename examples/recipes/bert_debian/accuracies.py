"""Collect rows and a table from the results of run.sh, classifiers.sh and alone.sh in WORK_DIR so far.

    python examples/recipes/bert_debian/accuracies.py WORK_DIR

``rows.jsonl``: accuracy of each subnet, with its sizes and its 95 % interval (2,000 resamplings of test
examples), and of the linear model; loss of masked words of each subnet that masked_words.py measured. ``table.md``: the
accuracies, with a line for each subnet.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mos_fairseq.errors import InputError
from mos_fairseq.files import write_atomically
from mos_fairseq.jsonl import read_jsonl

SOURCES = {
    "supernet": "supernet",
    "start": "cut from the encoder",
    "random": "random",
    "classifiers": "supernet of classifiers",
    "inherited": "supernet of classifiers from the encoder",
    "alone": "cut from the encoder, alone",
    "tuned": "supernet of classifiers from the encoder, then alone",
    "taught": "supernet of classifiers from the encoder, then alone by a teacher",
    "masked": "supernet of masked words, then alone",
}


def interval(hits: str) -> list[float]:
    """Of the accuracy, in per cent."""
    found = np.array([hit == "1" for hit in hits])
    draws = np.random.default_rng(1).integers(len(found), size=(2000, len(found)))
    return [round(float(edge), 1) for edge in np.percentile(100 * found[draws].mean(axis=1), [2.5, 97.5])]


def scored(path: Path) -> dict[str, Any]:
    """Read a file of score.py or baseline.py."""
    found = json.loads(path.read_text())
    return {"accuracy": round(found["accuracy"], 2), "interval": interval(found["hits"]), "tested": found["examples"]}


def linear_rows(work: Path) -> list[dict[str, Any]]:
    """Of the linear model."""
    rows = []
    for path in sorted(work.glob("baseline-*.json")):
        _, task, count = path.stem.split("-")
        rows.append({"task": task, "examples": count, "subnet": "TF-IDF, linear"} | scored(path))
    return rows


def sizes_of(run: Path, name: str) -> dict[str, Any]:
    """Parameters, FLOPs and, where it was measured, latency of a subnet of a run."""
    cost = {Path(cost["subnet"]).stem: cost for cost in read_jsonl(run / "costs.jsonl")}[name]
    sizes = {key: cost[key] for key in ("params", "params_without_embeddings", "flops_without_output_projection")}
    if (latencies := run / "latency.jsonl").exists():
        for line in read_jsonl(latencies):
            if line.get("subnet") == cost["architecture"] and "latency_ms" in line:
                sizes["latency_ms"] = round(line["latency_ms"], 2)
    return sizes


def masked_rows(work: Path) -> list[dict[str, Any]]:
    """Of the losses that masked_words.py measured."""
    rows = []
    for path in sorted(work.glob("masked/*/masked.json")):
        name, routing, seed = path.parent.name.split("-")
        found = json.loads(path.read_text())
        row = {"task": "masked words", "examples": found["texts"], "subnet": name, "source": "masked"}
        row |= {"routing": routing, "seed": int(seed)} | sizes_of(work / "architectures", name)
        rows.append(row | {"bits": round(found["mean"], 4), "words": sum(found["words"])})
    return rows


def subnet_rows(work: Path) -> list[dict[str, Any]]:
    """Of the subnets, with the sizes that mos-cost counted."""
    rows = []
    for path in sorted(work.glob("tuned/*/score.json"), key=lambda path: path.stat().st_mtime):
        task, count, source, *name, routing, seed = path.parent.name.split("-")
        run = work / f"{routing}-{seed}"
        if source == "classifiers":
            run /= f"{task}-{count}"
        elif source in ("inherited", "alone", "tuned", "taught", "masked"):
            run = work / "architectures"
        sizes = sizes_of(run, "-".join(name))
        row = {"task": task, "examples": count, "subnet": "-".join(name), "source": source, "routing": routing}
        rows.append(row | {"seed": int(seed)} | sizes | scored(path))
    return rows


def weights_of(row: dict[str, Any]) -> str:
    """Where the subnet's weights come from; classifiers.sh trains some alone by the teacher, which their names tell."""
    if row["subnet"].startswith("alone-"):
        return "supernet, then the teacher alone"
    return SOURCES[row["source"]] + (", then alone" if row["subnet"].startswith("tuned-") else "")


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each row."""
    lines = [
        "| task, examples | subnet | routing, seed | weights | encoder | parameters | MFLOPs | ms | accuracy (95 %) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        sizes = ["", "", "", "", "", ""]
        if "params" in row:
            keys = ("params_without_embeddings", "params", "flops_without_output_projection")
            million = [f"{row[key] / 1e6:.1f}" for key in keys]
            latency = f"{row['latency_ms']:.1f}" if "latency_ms" in row else ""
            sizes = [f"`{row['routing']}`, {row['seed']}", weights_of(row), *million, latency]
        cells = [f"{row['task']}, {row['examples']}", row["subnet"], *sizes]
        lines.append(f"| {' | '.join(cells)} | {row['accuracy']:.1f} ({low:.1f} to {high:.1f}) |")
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    work = Path(sys.argv[1])
    try:
        rows, masked = linear_rows(work) + subnet_rows(work), masked_rows(work)
    except InputError as error:
        sys.exit(f"error: {error}")
    lines = (json.dumps(row) + "\n" for row in rows + masked)
    write_atomically(work / "rows.jsonl", "".join(lines))
    write_atomically(work / "table.md", table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
