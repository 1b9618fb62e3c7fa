"""``mos-search``: find the best subnets of a trained supernet within budgets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mos_fairseq.cli import check_exists, start, warn
from mos_fairseq.cli.calibration import (
    CHECKPOINT,
    CalibrationOptions,
    calibrate,
    calibration_of,
    calibration_options,
)
from mos_fairseq.cli.search_judges import check_predictor, costs_by, evaluator_of_process, judges
from mos_fairseq.cli.search_options import (
    RandomOptions,
    algorithm_options,
    check_split_options,
    cost_keys,
    evaluation_options,
    get_parser,
    kept_choices,
    report_options,
)
from mos_fairseq.cli.search_results import latency_options, measure_results, print_results, translate_results
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.evaluation.options import EvaluationOptions
from mos_fairseq.files import check_writable, make_folder
from mos_fairseq.nas import Constraint, EvolutionOptions
from mos_fairseq.search_space import SearchSpace, Subnet

if TYPE_CHECKING:
    from mos_fairseq.cli.search_options import AlgorithmOptions
    from mos_fairseq.evaluation.evaluator import SubnetEvaluator
    from mos_fairseq.latency import LatencyPredictor, SplitLatency
    from mos_fairseq.nas import Candidates
    from mos_fairseq.nas.budgets import Hole


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(argv)
    try:
        _run(args)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        sys.exit(130)


@dataclass
class _Request:
    """What is requested.

    Args:
        args: the command line's.
        constraints: budgets.
        chosen: costs to report, or to minimise beside the loss.
        options: of the algorithm.
        translated: options for translating with the subnets of the closing table, if requested.
        calibrated: options for calibrating the best subnets, if requested.
        predictor, split: sources of latencies.
    """

    args: argparse.Namespace
    constraints: Sequence[Constraint]
    chosen: tuple[str, ...]
    options: AlgorithmOptions
    translated: EvaluationOptions | None
    calibrated: CalibrationOptions | None
    predictor: LatencyPredictor | None = None
    split: SplitLatency | None = None


def _run(args: argparse.Namespace) -> None:
    """Do everything that needs no torch, then the rest."""
    constraints = [Constraint.parse(text) for text in args.constraint]
    args.choices = kept_choices(args.choices)
    check_split_options(args)
    usual = "split_latency_ms" if args.split else "latency_ms" if args.predictor else "flops"
    chosen = cost_keys(args.cost or usual)
    options, evaluation = algorithm_options(args, chosen), evaluation_options(args)
    request = _Request(args, constraints, chosen, options, report_options(args), calibration_options(args))
    keys = {*chosen, *(constraint.key for constraint in constraints)}
    if not args.predictor and "latency_ms" in keys:
        raise InputError("latency_ms needs a predictor: --predictor FILE (of mos-latency fit)")
    if args.measure_front and not args.predictor:
        raise InputError("measure_front needs a predictor, whose settings it measures with: --predictor FILE")
    if args.measure_front:
        check_writable(args.measure_front, "measure_front")
    at_least(1, workers=args.workers)
    check_exists(args.path)
    if args.predictor:
        from mos_fairseq.latency import LatencyPredictor

        request.predictor = LatencyPredictor.load(args.predictor)
    request.split = _split(args)
    _check_supplied(keys, request.predictor, request.split)
    start()
    _run_search(request, partial(evaluator_of_process, args.path, args.data, evaluation, args.device))


def _split(args: argparse.Namespace) -> SplitLatency | None:
    if args.split is None:
        return None
    from mos_fairseq.latency import LatencyPredictor, SplitLatency

    machines = [LatencyPredictor.load(path) for path in args.split]
    return SplitLatency(*machines, args.bandwidth_mbps, args.rtt_ms or 0.0, args.transfer_dtype or "float32")


def _check_supplied(keys: set[str], predictor: LatencyPredictor | None, split: SplitLatency | None) -> None:
    """Raise InputError if one of these costs has no source."""
    from mos_fairseq.latency import SPLIT_KEYS

    known = set(SPLIT_KEYS) if split else set(predictor.parts) if predictor else set()
    for key in (key for key in SPLIT_KEYS if key in keys - known):
        raise InputError(f"{key} needs two machines: --split DEVICE SERVER (of mos-latency fit --target split)")


def _run_search(request: _Request, prepare: Callable[[int], SubnetEvaluator]) -> None:
    """``prepare`` makes the evaluator of the process with a rank."""
    import torch

    from mos_fairseq.nas import Candidates
    from mos_fairseq.nas.budgets import most_beyond
    from mos_fairseq.nas.judged import JudgedSubnets
    from mos_fairseq.nas.landmarks import most_landmarks

    args = request.args
    threads = torch.get_num_threads()  # of the whole machine: workers get a part
    space, seeds = _space_and_seeds(args)
    if request.translated is not None and request.translated.objective not in space.family.objectives:
        known = ", ".join(space.family.objectives)
        raise InputError(f"report_bleu: models of family {space.family.name} are judged by {known}")
    with ExitStack() as stack:
        evaluator, workers = judges(args, prepare, stack)
        if evaluator is None:
            return
        _check_measured(request, evaluator)
        cache = _folders(args)
        path = cache / f"{evaluator.fingerprint()}.jsonl"
        calibration = None
        if request.calibrated:
            calibration = calibration_of(args, request.calibrated, evaluator, cache / "calibration", threads)
        compared = most_landmarks(request.constraints) + most_beyond(bool(request.constraints))
        most = min(request.options.most_subnets + compared + len(seeds), space.size)
        judged = stack.enter_context(JudgedSubnets(path, evaluator, workers, most))

        def losses(subnets: Sequence[Subnet]) -> list[float]:
            return judged.evaluate(subnets, before=len(candidates.seen) - len(subnets))

        costs = costs_by(evaluator, request.predictor, request.split)
        (costs_of_largest,) = costs([space.largest()])
        budgets = [constraint.of_largest(costs_of_largest) for constraint in request.constraints]
        inside = [seed for seed in seeds if space.contains(seed)]
        kept = "".join(f" {key}={','.join(map(str, values))}" for key, values in args.choices.items())
        part = f" with --choices{kept}" if kept else ""
        candidates = Candidates(space, costs, losses, budgets, judged.known, seeds=inside, part=part)
        if beyond := len(seeds) - len(candidates.kept_seeds()):
            limits = "a budget or --choices" if args.choices else "a budget"
            warn(f"{beyond} of {len(seeds)} seeds miss {limits} and are left out")
        results, seen, around = _found(args, candidates, request.options, request.chosen, judged.show)
    (Path(args.output) / CHECKPOINT).unlink(missing_ok=True)  # from an earlier search
    if request.calibrated is not None and calibration is not None:
        calibrate(args, request.calibrated.top, calibration, results, candidates)
    if request.split is not None:
        results["placements"] = request.split.placements(Subnet.from_dict(results["best"]["architecture"]))
    if args.choices:
        results["choices"] = args.choices
    if evaluator.signature is not None:
        results["signature"] = evaluator.signature
    _write(request, results, seen)
    for hole in around:
        warn(str(hole))
    print_results(args, results, request.predictor)


def _space_and_seeds(args: argparse.Namespace) -> tuple[SearchSpace, list[Subnet]]:
    """Return the part of the supernet's space that is searched, and the subnets to start from."""
    from mos_fairseq.checkpoints import read_supernet, search_space_of, subnet_of
    from mos_fairseq.nas.seeds import read_seeds

    state = read_supernet(args.path)  # its error names what the checkpoint holds instead
    whole = search_space_of(state)
    try:
        space = whole.narrowed(args.choices)
    except InputError as error:
        raise InputError(f"choices: {error}") from None
    if args.seeds_from == "controller":
        return space, [subnet_of(state, args.seeds_from)]
    return space, read_seeds(args.seeds_from, whole) if args.seeds_from else []


def _check_measured(request: _Request, evaluator: SubnetEvaluator) -> None:
    """Raise InputError unless predictors and measurements are of models like this supernet's subnets."""
    from mos_fairseq.latency import check_latency_file

    args, split = request.args, request.split
    check_predictor(args.predictor, request.predictor, evaluator)
    if split is not None:
        for path, machine in zip(args.split, (split.device, split.server), strict=True):
            check_predictor(path, machine, evaluator)
    if args.measure_front:
        check_latency_file(args.measure_front, evaluator.space, *latency_options(args, request.predictor))


def _write(request: _Request, results: dict[str, Any], seen: list[dict[str, Any]]) -> None:
    """Write the results; then measure and translate, if requested, and write again: an interrupted measurement leaves
    the results of the search."""
    from mos_fairseq.nas.results import write_results

    args = request.args
    write_results(Path(args.output), results, seen, args.path)
    if args.measure_front:
        measure_results(args, results, request.predictor)
    if request.translated is not None:
        translate_results(results, evaluator_of_process(args.path, args.data, request.translated, args.device, 0))
    if args.measure_front or request.translated is not None:
        write_results(Path(args.output), results, seen, args.path)


def _found(
    args: argparse.Namespace,
    candidates: Candidates,
    options: AlgorithmOptions,
    costs: tuple[str, ...],
    show: Callable[[int, float], object],
) -> tuple[dict[str, Any], list[dict[str, Any]], list[Hole]]:
    """Search, and judge the subnets to compare the best with. Return the results, the rows of all judged subnets that
    keep the budgets, and the budgets that lie in a hole of the space."""
    from mos_fairseq.nas.budgets import beyond, holes
    from mos_fairseq.nas.landmarks import landmarks, uniform_subnets
    from mos_fairseq.nas.results import report, row

    rounds: list[dict[str, Any]] = []
    best = _search(candidates, options, show, rounds.append)
    examined = list(candidates.seen.values())
    compared = landmarks(candidates)
    results = report(candidates, best, costs, args.objective, examined)
    if rounds:
        results["rounds"] = rounds
    kept = [subnet for subnet in candidates.seen.values() if candidates.feasible(subnet)]
    seen = [row(candidates, subnet, args.objective) for subnet in kept]
    if (more := beyond(candidates, Subnet.from_dict(results["best"]["architecture"]))) is not None:
        compared["beyond"] = more
    results["compared"] = {name: row(candidates, subnet, args.objective) for name, subnet in compared.items()}
    loosest_first = sorted(candidates.constraints, key=lambda budget: -budget.limit)
    results["budgets"] = {budget.key: budget.limit for budget in loosest_first}  # of several with one key, the tightest
    around = holes(candidates, uniform_subnets(candidates.space) if candidates.constraints else ())
    results["holes"] = [{"key": hole.budget.key, "below": hole.below, "above": hole.above} for hole in around]
    return results, seen, around


def _folders(args: argparse.Namespace) -> Path:
    """Make the folder of the results and the folder of judged subnets; return the second."""
    cache = Path(args.cache) if args.cache else Path(args.path).resolve().parent / "subnet-evaluations"
    make_folder(args.output, "output")
    make_folder(cache, "cache")
    return cache


def _search(
    candidates: Candidates,
    options: AlgorithmOptions,
    show: Callable[[int, float], object],
    note: Callable[[dict[str, Any]], object],
) -> Subnet | None:
    """Return the best subnet, or None if it is the best of all judged ones. ``note`` receives records about the rounds
    of an algorithm that learns."""
    from mos_fairseq.nas import (
        AsngOptions,
        LinasOptions,
        asng_search,
        evolve,
        linas_search,
        pareto_search,
        random_search,
    )

    if isinstance(options, EvolutionOptions):
        return evolve(candidates, options, show)
    if isinstance(options, RandomOptions):
        return random_search(candidates, options.num_subnets, options.seed)
    if isinstance(options, AsngOptions):
        return asng_search(candidates, options, show)
    if isinstance(options, LinasOptions):
        linas_search(candidates, options, show, lambda found: note(found | {"best": abs(found["best"])}))
    else:
        pareto_search(candidates, options, show)
    return None
