"""``mos-search --calibrate``: train each of a search's best subnets alone for a few updates, then rank them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_fairseq.cli import Group, aligned
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.progress import progress
from mos_fairseq.search_space import Subnet

if TYPE_CHECKING:
    from mos_fairseq.evaluation.evaluator import SubnetEvaluator
    from mos_fairseq.nas import Candidates
    from mos_fairseq.nas.results import Row
    from mos_fairseq.standalone.calibration import Calibration

_NAMES = ("calibrate_top", "calibrate_parts", "calibrate_lr")
_PARTS = "norms,biases"
CHECKPOINT = "calibrated.pt"


@dataclass(frozen=True)
class CalibrationOptions:
    """``updates`` of each of the ``top`` best subnets; ``parts`` and ``lr`` as in :class:`Calibration`.

    Raises:
        InputError: a number is out of range.
    """

    updates: int
    top: int = 10
    parts: str = _PARTS
    lr: float | None = None

    def __post_init__(self) -> None:
        at_least(1, calibrate=self.updates, calibrate_top=self.top)
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise InputError(f"calibrate_lr is {self.lr}: allowed are numbers above 0")


def add_calibration_options(parser: Group) -> None:
    """Add them."""
    add = partial(parser.add_argument, metavar="N")
    add(
        "--calibrate",
        type=int,
        metavar="UPDATES",
        help="train each of the best subnets on, alone, for N updates, before they are ranked; the supernet "
        f"stays unchanged, and the best one's model is {CHECKPOINT} in the folder of the results",
    )
    add("--calibrate-top", type=int, help="calibrate; number of subnets (default: 10)")
    add(
        "--calibrate-parts",
        metavar="PARTS",
        help=f"calibrate; parameters that train: norms, biases, both separated by a comma, or all (default: {_PARTS})",
    )
    add(
        "--calibrate-lr",
        type=float,
        metavar="LR",
        help="calibrate; highest learning rate (default: that of the supernet's last update; a third of its "
        "highest after cosine, polynomial_decay and tri_stage)",
    )


def calibration_options(args: argparse.Namespace) -> CalibrationOptions | None:
    """Return None without ``--calibrate``. Raises InputError if a number is out of range or an option has no effect."""
    given = {name: value for name in _NAMES if (value := getattr(args, name)) is not None}
    if args.calibrate is None:
        for name, value in given.items():
            raise InputError(f"{name} is {value}: it has no effect without --calibrate UPDATES")
        return None
    if args.report_bleu:
        raise InputError(
            f"report_bleu with calibrate {args.calibrate}: it translates with inherited weights; fairseq-generate "
            f"translates with {CHECKPOINT}"
        )
    return CalibrationOptions(args.calibrate, **{name.removeprefix("calibrate_"): given[name] for name in given})


def calibration_of(
    args: argparse.Namespace, options: CalibrationOptions, evaluator: SubnetEvaluator, root: Path, threads: int
) -> Calibration:
    """Return the calibration, which judges as ``evaluator`` does; ``root``: folder of the runs; ``threads``: of each.

    Raises:
        InputError: a part does not exist, or models of this family cannot train alone.
    """
    from mos_fairseq.standalone.calibration import Calibration

    judged = (evaluator.options, evaluator.fingerprint(), str(evaluator.device))
    what = (args.path, args.data, options.updates, options.parts, root)
    return Calibration(*what, *judged, options.lr, threads)


def calibrate(
    args: argparse.Namespace,
    top: int,
    calibration: Calibration,
    results: dict[str, Any],
    candidates: Candidates,
) -> None:
    """Rerank the ``top`` best subnets within the budgets. Set ``calibrated`` and ``best`` in ``results``, and write the
    best one's model into the folder of the results.

    Raises:
        InputError: a training failed.
    """
    from mos_fairseq.nas.judged import DIGITS
    from mos_fairseq.nas.results import row

    kept = [subnet for subnet in candidates.seen.values() if candidates.feasible(subnet)]
    kept.sort(key=lambda subnet: (candidates.known[subnet.key], subnet.key))
    rows: list[Row] = []
    chosen = kept[:top]
    with progress(total=len(chosen), desc="calibrating", unit="subnet") as bar:
        for place, subnet in enumerate(chosen, start=1):
            quality, seconds = calibration.judge(subnet)
            found = {"calibrated": round(quality, DIGITS), "seconds": seconds, "place": place}
            rows.append(found | row(candidates, subnet, args.objective))
            bar.update()
    rows.sort(key=lambda found: found["calibrated"] if args.objective == "loss" else -found["calibrated"])
    results["calibrated"], results["best"] = rows, rows[0]
    calibration.save(Subnet.from_dict(rows[0]["architecture"]), Path(args.output) / CHECKPOINT)


def calibrated_table(rows: list[Row], objective: str) -> str:
    """Return a table of the calibrated subnets from the best on, with their ranks before calibration."""
    cells = [
        [str(found["place"]), f"{found[objective]:.4f}", f"{found['calibrated']:.4f}", f"{found['seconds']:.1f}"]
        for found in rows
    ]
    return aligned([["place inherited", objective, "calibrated", "seconds"], *cells])
