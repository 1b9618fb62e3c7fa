#!/usr/bin/env python3
"""Does calibration bring inherited losses closer to those of architectures trained alone?

    python examples/studies/calibration/study.py CHECKPOINT DATA WORK_DIR [--subnet S,S] [--updates 50,200]

For each subnet of a supernet: the loss with inherited weights, after each number of --updates of norms and biases only,
after as many of all weights, and of the same architecture trained from scratch, with the supernet's number of updates
or --alone N. Prints bias, mean absolute error and Kendall's tau against the last, and seconds a subnet; writes
rows.jsonl. An interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from itertools import product
from pathlib import Path
from typing import Any

logging.disable(logging.INFO)

import numpy as np  # noqa: E402
from scipy.stats import kendalltau  # noqa: E402

from mos_fairseq.checkpoints import read_supernet, updates_of  # noqa: E402
from mos_fairseq.evaluation import EvaluationOptions, SubnetEvaluator  # noqa: E402
from mos_fairseq.evaluation.evaluator import ModelEvaluator  # noqa: E402
from mos_fairseq.files import write_atomically  # noqa: E402
from mos_fairseq.search_space import Subnet, resolve_subnet  # noqa: E402
from mos_fairseq.standalone.calibration import Calibration  # noqa: E402
from mos_fairseq.standalone.kinds import kind_of  # noqa: E402
from mos_fairseq.standalone.options import training_options  # noqa: E402
from mos_fairseq.standalone.recipe import Recipe  # noqa: E402
from mos_fairseq.standalone.training import train_all  # noqa: E402

PARTS = {"calibrated": "norms,biases", "finetuned": "all"}


class Study:
    """``arguments``: the command line's."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.work, self.options = arguments, Path(arguments.work), EvaluationOptions()
        self.updates = [int(number) for number in arguments.updates.split(",")]
        self.evaluator = SubnetEvaluator(arguments.checkpoint, arguments.data, self.options)
        self.state = read_supernet(arguments.checkpoint)
        cfg = self.state["cfg"]
        self.recipe = Recipe(kind_of(cfg), arguments.data, training_options(cfg))

    def row(self, subnet: Subnet) -> dict[str, Any]:
        """All losses of one subnet, and the seconds that each took."""
        began = time.perf_counter()
        row: dict[str, Any] = {"inherited": self.evaluator.evaluate(subnet)}
        row["inherited_seconds"] = round(time.perf_counter() - began, 2)
        for updates, (name, parts) in product(self.updates, PARTS.items()):
            where = (self.arguments.checkpoint, self.arguments.data, updates, parts, self.work / name)
            arm = f"{name}_{updates}"
            row[arm], row[f"{arm}_seconds"] = Calibration(*where, self.options, self.evaluator.fingerprint()).judge(
                subnet
            )
        root = Path(self.arguments.standalone or self.work / "alone")
        training = self.recipe.from_scratch(root, subnet, self.arguments.alone or updates_of(self.state))
        for _ in train_all([training], 1, 1):
            pass
        row["alone"] = ModelEvaluator(str(training.result), self.arguments.data, self.options).loss()
        return row | {"architecture": subnet.to_dict()}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "data", "work"):
        parser.add_argument(name)
    parser.add_argument("--subnet", help="as for mos-gap (default: largest, smallest and random:1 to random:6)")
    parser.add_argument("--updates", default="50,200", help="default: %(default)s")
    parser.add_argument("--alone", type=int, metavar="N", help="default: the supernet's updates")
    parser.add_argument(
        "--standalone",
        metavar="DIR",
        help="of mos-gap --standalone DIR (default: WORK_DIR/alone)",
    )
    study = Study(parser.parse_args())
    specs = (study.arguments.subnet or ",".join(["largest", "smallest", *(f"random:{n}" for n in range(1, 7))])).split(
        ","
    )
    rows = []
    for spec in specs:
        rows.append({"subnet": Path(spec).stem} | study.row(resolve_subnet(spec, study.evaluator.space)))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(study.work / "rows.jsonl", text)
        print(spec, {key: round(value, 4) for key, value in rows[-1].items() if isinstance(value, float)}, flush=True)
    report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    """Print the table, with 95 % intervals of 2,000 bootstrap samples of the architectures."""
    names = [key.removesuffix("_seconds") for key in rows[0] if key.endswith("_seconds")]
    losses = {name: np.array([row[name] for row in rows]) for name in (*names, "alone")}
    rng = np.random.default_rng(1)
    samples = [np.arange(len(rows)), *rng.integers(len(rows), size=(2000, len(rows)))]

    def tau(name: str, chosen: np.ndarray) -> float:
        return kendalltau(losses[name][chosen], losses["alone"][chosen]).statistic

    print("| losses | bias | MAE | tau | tau, to inherited | seconds a subnet |")
    print("|---|---|---|---|---|---|")
    for name in names:
        error = losses[name] - losses["alone"]
        seconds = np.mean([row[f"{name}_seconds"] for row in rows])
        cells = [
            _interval([error[chosen].mean() for chosen in samples], "+.3f"),
            f"{abs(error).mean():.3f}",
            _interval([tau(name, chosen) for chosen in samples], ".2f"),
            _interval([tau(name, chosen) - tau(names[0], chosen) for chosen in samples], "+.2f"),
        ]
        print(f"| {name.replace('_', ', ')} | {' | '.join(cells)} | {seconds:.0f} |")


def _interval(values: list[float], form: str) -> str:
    """The first of ``values``, and the interval of the others."""
    if np.isnan(values[0]):  # tau of a single subnet
        return "nan"
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return f"{values[0]:{form}} ({low:{form}} to {high:{form}})"


if __name__ == "__main__":
    main()
