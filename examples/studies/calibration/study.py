#!/usr/bin/env python3
"""Does calibration bring inherited losses closer to those of architectures trained alone?

    python examples/studies/calibration/study.py CHECKPOINT DATA WORK_DIR [--subnets 8] [--updates 50] [--alone N]

For a supernet's largest, smallest and random subnets: the loss with inherited weights, after --updates of norms and
biases only, after the same number of all weights, and of the same architecture trained from scratch, with the
supernet's number of updates or N. Prints mean absolute errors against the last, Kendall's tau and seconds a
subnet; writes rows.json. An interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

logging.disable(logging.INFO)

from scipy.stats import kendalltau  # noqa: E402

from mos_fairseq.checkpoints import read_supernet, updates_of  # noqa: E402
from mos_fairseq.evaluation import EvaluationOptions, SubnetEvaluator  # noqa: E402
from mos_fairseq.evaluation.evaluator import ModelEvaluator  # noqa: E402
from mos_fairseq.search_space import Subnet, resolve_subnet  # noqa: E402
from mos_fairseq.standalone.calibration import Calibration  # noqa: E402
from mos_fairseq.standalone.options import training_options  # noqa: E402
from mos_fairseq.standalone.recipe import Recipe  # noqa: E402
from mos_fairseq.standalone.training import train_all  # noqa: E402

ARMS = {"calibrated": "norms,biases", "finetuned": "all"}


class Study:
    """``arguments``: the command line's."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.work, self.options = arguments, Path(arguments.work), EvaluationOptions()
        self.evaluator = SubnetEvaluator(arguments.checkpoint, arguments.data, self.options)
        self.state = read_supernet(arguments.checkpoint)
        self.recipe = Recipe(arguments.data, training_options(self.state["cfg"]))

    def row(self, subnet: Subnet) -> dict[str, Any]:
        """All losses of one subnet, and the seconds that each took."""
        began = time.perf_counter()
        row: dict[str, Any] = {"inherited": self.evaluator.evaluate(subnet)}
        row["inherited_seconds"] = round(time.perf_counter() - began, 2)
        where = (self.arguments.checkpoint, self.arguments.data, self.arguments.updates)
        for name, parts in ARMS.items():
            calibration = Calibration(*where, parts, self.work / name, self.options, self.evaluator.fingerprint())
            row[name], row[f"{name}_seconds"] = calibration.judge(subnet)
        training = self.recipe.from_scratch(self.work / "alone", subnet, self.arguments.alone or updates_of(self.state))
        for _ in train_all([training], 1, 1):
            pass
        row["alone"] = ModelEvaluator(str(training.result), self.arguments.data, self.options).loss()
        return row | {"architecture": subnet.to_dict()}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "data", "work"):
        parser.add_argument(name)
    parser.add_argument("--subnets", type=int, default=8)
    parser.add_argument("--updates", type=int, default=50)
    parser.add_argument("--alone", type=int)
    study = Study(parser.parse_args())
    specs = ["largest", "smallest", *(f"random:{seed}" for seed in range(1, study.arguments.subnets - 1))]
    rows = []
    for spec in specs:
        rows.append({"subnet": spec} | study.row(resolve_subnet(spec, study.evaluator.space)))
        (study.work / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(spec, {key: round(value, 4) for key, value in rows[-1].items() if isinstance(value, float)}, flush=True)
    alone = [row["alone"] for row in rows]
    for name in ("inherited", *ARMS):
        losses = [row[name] for row in rows]
        error = sum(abs(a - b) for a, b in zip(losses, alone, strict=True)) / len(rows)
        seconds = sum(row[f"{name}_seconds"] for row in rows) / len(rows)
        print(f"{name}: MAE {error:.3f}, tau {kendalltau(losses, alone).statistic:.2f}, {seconds:.1f} s a subnet")


if __name__ == "__main__":
    main()
