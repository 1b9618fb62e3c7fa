"""Measure, translate with and print the results of ``mos-search``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_fairseq.cli import warn
from mos_fairseq.cli.calibration import CHECKPOINT, calibrated_table
from mos_fairseq.cli.search_table import (
    beaten,
    budget_lines,
    closing_rows,
    placements_table,
    round_line,
    slower_split,
    table,
)
from mos_fairseq.errors import InputError
from mos_fairseq.latency import REPEATS, LatencyOptions
from mos_fairseq.progress import progress
from mos_fairseq.search_space import Subnet

if TYPE_CHECKING:
    from mos_fairseq.evaluation.evaluator import SubnetEvaluator
    from mos_fairseq.latency import LatencyPredictor

_BOOTSTRAP = 1000  # resampled validation sets


def latency_options(args: argparse.Namespace, predictor: LatencyPredictor) -> tuple[LatencyOptions, int | None]:
    """Return (options, number of threads) of the predictor's measurements; None if the options have the number."""
    try:
        options = dict(predictor.measured["options"])
        threads = int(predictor.measured["machine"]["threads"]) if options["threads"] is None else None
        return LatencyOptions(**options), threads
    except (KeyError, TypeError):
        raise InputError(f"predictor {args.predictor}: it does not say how its latencies were measured") from None


def measure_results(args: argparse.Namespace, results: dict[str, Any], predictor: LatencyPredictor) -> None:
    """Add measured latencies of the best subnet, the front and the compared subnets to ``results``, at the speed that
    the machine had in the predictor's measurements."""
    from mos_fairseq.latency import first_difference, measure_to_file
    from mos_fairseq.nas.results import add_measured

    rows = (results["best"], *results["front"], *results["compared"].values())
    subnets = {subnet.key: subnet for subnet in (Subnet.from_dict(found["architecture"]) for found in rows)}
    options, threads = latency_options(args, predictor)
    with progress(total=REPEATS * len(subnets), unit="run", desc="measuring") as bar:

        def show(row: dict[str, Any]) -> None:
            bar.update()

        space, chosen = predictor.space, list(subnets.values())
        found = measure_to_file(args.measure_front, space, chosen, options, REPEATS, show, threads)
    warn(found.busy())
    if difference := first_difference(predictor.measured, found.measured):
        what, old, new = difference
        warn(
            f"measured latencies are of this machine ({what}={new}), predicted ones of the predictor's ({old}): they "
            "do not compare"
        )
    found = found.at_speed_of(predictor.measured)
    add_measured(results, {subnet.key: ms for subnet, ms in zip(found.subnets, found.latency_ms, strict=True)})


def translate_results(results: dict[str, Any], evaluator: SubnetEvaluator) -> None:
    """Add BLEU of the closing table's subnets to ``results``, with its confidence interval and the p-value of the
    difference to the best subnet."""
    from mos_fairseq.evaluation.significance import paired_bootstrap

    rows = closing_rows(results)
    subnets = {name: Subnet.from_dict(found["architecture"]) for name, found in rows.items()}
    distinct = {subnet.key: subnet for subnet in (subnets["best"], *subnets.values())}  # the best comes first
    hypotheses: dict[str, list[str]] = {}
    with progress(total=len(distinct), unit="subnet", desc="translating") as bar:
        for key, subnet in distinct.items():
            hypotheses[key], references = evaluator.translations_of(subnet)
            bar.update()
    tokenizer = evaluator.options.sacrebleu_tokenizer
    sure = paired_bootstrap(hypotheses, references, _BOOTSTRAP, "bleu", tokenizer) if len(distinct) > 1 else {}
    for name, found in rows.items():
        key = subnets[name].key
        if results["objective"] != "bleu":
            found["bleu"] = evaluator.score(hypotheses[key], references)
        found |= {"bleu_ci": sure[key]["bleu_ci"]} if sure else {}
        found |= {"p_value": sure[key]["p_value"]} if "p_value" in sure.get(key, {}) else {}


def print_results(args: argparse.Namespace, results: dict[str, Any], predictor: LatencyPredictor | None) -> None:
    output = Path(args.output)
    if "placements" in results:
        warn(slower_split(results["placements"]))
    if "calibrated" not in results:
        warn(beaten(results))
    if args.json:
        more = {name: results[name] for name in ("judged", "within_budgets")}
        more |= {"front_size": len(results["front"]), "compared": results["compared"]}
        more |= {
            name: results[name]
            for name in ("algorithm_best", "choices", "rounds", "placements", "calibrated")
            if name in results
        }
        print(json.dumps(results["best"] | more))
        return
    for found in results.get("rounds", []):
        print(round_line(found))
    part = " of the part of the space" if "choices" in results else ""
    best = Subnet.from_dict(results["best"]["architecture"])
    print(f"best of {results['within_budgets']} subnets{part}: {best.summary()}")
    print(table(results, predictor.scores.get(predictor.family, {}).get("mape") if predictor else None))
    for line in budget_lines(results):
        print(line)
    if "placements" in results:
        print(placements_table(results["placements"]))
    if "calibrated" in results:
        print(calibrated_table(results["calibrated"], results["objective"]))
    print(f"front of {len(results['front'])} subnets: {output / 'front.html'}, front.png, front.jsonl")
    models = [str(output / CHECKPOINT)] if "calibrated" in results else []
    print(", ".join([f"best: {output / 'best.yaml'}", *models]))
