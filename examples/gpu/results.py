"""Rows of results.jsonl from the results of run.sh's parts; a part's earlier rows are replaced.

python examples/gpu/results.py tests|benchmark|latency|study FILE results.jsonl [ROUTING]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mos_fairseq.files import write_atomically


def of_tests(path: Path) -> list[dict[str, Any]]:
    """A row for each test of a JUnit file."""
    rows = []
    for case in ElementTree.parse(path).iter("testcase"):
        outcome = next((tag for tag in ("failure", "error", "skipped") if case.find(tag) is not None), "passed")
        rows.append({"test": case.get("name"), "outcome": outcome, "seconds": float(case.get("time", "nan"))})
    return rows


def of_benchmark(path: Path) -> list[dict[str, Any]]:
    """A row for each variant of each section of mos-benchmark's report."""
    report = json.loads(path.read_text(encoding="utf-8"))
    device = {"device": report["machine"]["processor"]}
    return [
        {"suite": suite, "title": section["title"], "base": section["base"], **row, **device}
        for suite, sections in report["suites"].items()
        for section in sections
        for row in section["rows"]
    ]


def of_latency(path: Path) -> list[dict[str, Any]]:
    """A row that summarises a latency file."""
    from mos_fairseq.latency import read_latencies

    found = read_latencies(path)
    low, middle, high = found.reference_ms
    return [
        {
            "subnets": len(found.subnets),
            "fastest_ms": min(found.latency_ms),
            "slowest_ms": max(found.latency_ms),
            "reference_ms": middle,
            "drift": high / low,
            "repeats_std_percent": found.repeats_std,
            "machine": found.measured["machine"],
        }
    ]


def of_study(path: Path, routing: str) -> list[dict[str, Any]]:
    """A row for each subnet that fairseq-validate measured: bits a token of the test set."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "nll_loss_largest" in line]
    values = json.loads(lines[-1][lines[-1].index("{") :])
    names = {key.split("nll_loss_")[1]: float(value) for key, value in values.items() if "nll_loss_" in key}
    return [{"routing": routing, "subnet": name, "nll_loss": value} for name, value in names.items()]


def main() -> None:
    kind, path, results, *more = sys.argv[1:]
    readers = {"tests": of_tests, "benchmark": of_benchmark, "latency": of_latency, "study": of_study}
    rows = readers[kind](Path(path), *more)
    part = kind if kind in ("tests", "latency") else Path(path).parent.name
    target = Path(results)
    kept = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()] if target.exists() else []
    kept = [row for row in kept if row["part"] != part] + [{"part": part, **row} for row in rows]
    write_atomically(target, "".join(json.dumps(row) + "\n" for row in kept))


if __name__ == "__main__":
    main()
