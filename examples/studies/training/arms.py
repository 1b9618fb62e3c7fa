#!/usr/bin/env python3
"""Test losses of the supernets of run.sh: arms.py STUDY WORK_DIR DATA NAME-SEED...

Twelve subnets of each are judged: the largest, the smallest and ten random ones, the same in all supernets. Writes
WORK_DIR/STUDY.jsonl, a row for each supernet, which is kept (remove the file to judge anew). Prints bits a token, and
the difference to a reference, paired by seed, with a 95 % interval (Student's t) from three seeds on. The reference is
the study's first supernet; of "rounds", the one with as many processes and the same data that exchanges gradients; of
"optimizers", adam at 2e-3. The megabytes that a process sent are a mean over seeds.
"""

from __future__ import annotations

import json
import logging
import re
import statistics
import sys
from pathlib import Path
from typing import Any

logging.disable(logging.INFO)

from scipy.stats import t as student  # noqa: E402

from mos_fairseq.evaluation import EvaluationOptions, SubnetEvaluator  # noqa: E402
from mos_fairseq.files import write_atomically  # noqa: E402
from mos_fairseq.search_space import resolve_subnet  # noqa: E402

SUBNETS = ("largest", "smallest", *(f"random:{number}" for number in range(1, 11)))
PARTS = {"largest": SUBNETS[:1], "smallest": SUBNETS[1:2], "ten between": SUBNETS[2:], "all": SUBNETS}
_SENT = re.compile(r"([0-9.]+) MB so far")  # in the log of local rounds


def row_of(work: Path, name: str, data: str) -> dict[str, Any]:
    """The losses of one supernet."""
    arm, _, seed = name.rpartition("-")
    checkpoint = str(work / name / "checkpoint_last.pt")
    evaluator = SubnetEvaluator(checkpoint, data, EvaluationOptions(valid_subset="test", max_tokens=4096))
    losses = evaluator.evaluate_all([resolve_subnet(spec, evaluator.space) for spec in SUBNETS])
    found = {spec: round(loss, 4) for spec, loss in zip(SUBNETS, losses, strict=True)}
    sent = _SENT.findall((work / f"{name}.log").read_text())
    return {"arm": arm, "seed": int(seed), "losses": found} | ({"sent_mb": float(sent[-1])} if sent else {})


def mean_of(row: dict[str, Any], part: str) -> float:
    """Mean loss of some of the subnets."""
    return statistics.mean(row["losses"][spec] for spec in PARTS[part])


def reference_of(study: str, arm: str, first: str) -> str:
    """The arm that ``arm`` is compared with; see the top."""
    if study == "rounds":
        return f"{arm.rpartition('-')[0]}-0"
    return "adam-2e-3" if study == "optimizers" else first


def interval(differences: list[float]) -> str:
    """Mean with its 95 % interval."""
    mean = statistics.mean(differences)
    if len(differences) < 3:
        return f"{mean:+.3f}"
    half = student.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def main(study: str, folder: str, data: str, *names: str) -> None:
    """Entry point."""
    work = Path(folder)
    path = work / f"{study}.jsonl"
    kept = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows = {f"{row['arm']}-{row['seed']}": row for row in kept}
    for name in names:
        if name not in rows:
            rows[name] = row_of(work, name, data)
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows.values()))
    arms = list(dict.fromkeys(row["arm"] for row in rows.values()))
    print(f"| supernet | seeds | {' | '.join(PARTS)} | all, to the reference | MB sent |")
    print(f"|{'---|' * (len(PARTS) + 4)}")
    for arm in arms:
        mine = [row for row in rows.values() if row["arm"] == arm]
        means = [f"{statistics.mean(mean_of(row, part) for row in mine):.3f}" for part in PARTS]
        reference = reference_of(study, arm, arms[0])
        theirs = {row["seed"]: row for row in rows.values() if row["arm"] == reference}
        paired = [mean_of(row, "all") - mean_of(theirs[row["seed"]], "all") for row in mine if row["seed"] in theirs]
        difference = interval(paired) if paired and arm != reference else ""
        sent = [row["sent_mb"] for row in mine if "sent_mb" in row]
        cells = [arm, str(len(mine)), *means, difference, f"{statistics.mean(sent):.1f}" if sent else ""]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
