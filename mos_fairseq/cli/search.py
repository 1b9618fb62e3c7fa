"""``mos-search``: the best subnets of a trained supernet within budgets."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mos_fairseq.benchmark import (
    REPEATS,
    CostOptions,
    LatencyOptions,
    check_latency_file,
    measure_to_file,
    subnet_cost,
)
from mos_fairseq.cli import quiet
from mos_fairseq.cli.search_options import (
    AlgorithmOptions,
    RandomOptions,
    algorithm_options,
    evaluation_options,
    get_parser,
)
from mos_fairseq.errors import InputError
from mos_fairseq.export import read_supernet
from mos_fairseq.nas import (
    Candidates,
    Constraint,
    EvolutionOptions,
    LatencyPredictor,
    evolve,
    pareto_search,
    random_search,
)
from mos_fairseq.nas.constraints import COST_KEYS
from mos_fairseq.nas.evaluator import EvaluationOptions, SubnetEvaluator
from mos_fairseq.nas.judged import JudgedSubnets
from mos_fairseq.nas.results import add_measured, report, row, write_results
from mos_fairseq.nas.workers import Workers, launched, serve, started
from mos_fairseq.search_space import Subnet

# what a model's latency depends on besides the subnet and the dictionary
_MODEL_OPTIONS = (
    "share_all_embeddings",
    "share_decoder_input_output_embed",
    "encoder_normalize_before",
    "decoder_normalize_before",
    "layernorm_embedding",
)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(argv)
    quiet()
    try:
        _run(args)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)


def _run(args: argparse.Namespace) -> None:
    constraints = [Constraint.parse(text) for text in args.constraint]
    cost = args.cost or ("latency_ms" if args.predictor else "flops")
    options = algorithm_options(args, cost)
    predictor = LatencyPredictor.load(args.predictor) if args.predictor else None
    if predictor is None and "latency_ms" in {cost, *(constraint.key for constraint in constraints)}:
        raise InputError("latency_ms needs a predictor: --predictor FILE (of mos-latency fit)")
    if args.measure_front and predictor is None:
        raise InputError("measure_front needs a predictor, which says how to measure: --predictor FILE")
    if args.workers < 1:
        raise InputError(f"workers is {args.workers}: allowed are whole numbers from 1")
    read_supernet(args.path)  # tells what it is instead, if it is none
    prepare = partial(_evaluator, args.path, args.data, evaluation_options(args), args.device)
    with ExitStack() as stack:
        fleet = launched()
        if fleet is not None and args.workers > 1:
            raise InputError(f"workers is {args.workers}: under torchrun, its processes are the workers")
        all_threads = torch.get_num_threads()
        threads = max(1, all_threads // args.workers)
        torch.set_num_threads(threads)
        stack.callback(torch.set_num_threads, all_threads)  # what is measured afterwards has the machine to itself
        rank = fleet[1] if fleet else 0
        evaluator = prepare(rank)
        if rank:
            serve(fleet[0], evaluator.fingerprint(), evaluator.evaluate)
            return
        _check_predictor(args.predictor, predictor, evaluator)
        if args.measure_front:
            check_latency_file(args.measure_front, evaluator.space, _latency_options(args, predictor))
            torch.set_num_threads(threads)
        path = _folders(args) / f"{evaluator.fingerprint()}.jsonl"
        workers = None
        if fleet is not None or args.workers > 1:
            store = fleet[0] if fleet else stack.enter_context(started(args.workers - 1, prepare, threads))
            workers = stack.enter_context(Workers(store, evaluator.fingerprint(), evaluator.evaluate))
        most = min(options.most_subnets, evaluator.space.size)
        judged = stack.enter_context(JudgedSubnets(path, evaluator, workers, most))

        def losses(subnets: Sequence[Subnet]) -> list[float]:
            return judged.evaluate(subnets, before=len(candidates.seen) - len(subnets))

        candidates = Candidates(evaluator.space, _costs_by(evaluator, predictor), losses, constraints, judged.known)
        best = _search(candidates, options, judged.show)
    results = report(candidates, best, cost, args.objective)
    if evaluator.signature is not None:
        results["signature"] = evaluator.signature
    seen = [row(candidates, subnet, args.objective) for subnet in candidates.seen.values()]
    write_results(Path(args.output), results, seen)
    if args.measure_front:
        _measure(args, results, predictor)
        write_results(Path(args.output), results, seen)
    _print(args, results)


def _evaluator(path: str, data: str, options: EvaluationOptions, device: str | None, rank: int) -> SubnetEvaluator:
    """The evaluator of one process; several processes share the GPUs."""
    if device is None:
        device = f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    return SubnetEvaluator(path, data, options, device)


def _check_predictor(path: str, predictor: LatencyPredictor | None, evaluator: SubnetEvaluator) -> None:
    """Raise InputError unless ``predictor`` was fitted to models as this supernet's subnets are."""
    if predictor is None:
        return
    if predictor.space is None or predictor.space.difference(evaluator.space):
        difference = predictor.space and predictor.space.difference(evaluator.space)
        reason = f"another search space: {difference}" if difference else "averaged features"
        raise InputError(f"predictor {path}: fitted on {reason}")
    options, cfg = predictor.measured.get("options", {}), evaluator.model.cfg
    wanted = {name: getattr(cfg, name) for name in _MODEL_OPTIONS}
    wanted["vocab_size"] = len(evaluator.task.target_dictionary)
    for name, value in wanted.items():
        if name in options and options[name] != value:
            raise InputError(f"predictor {path}: measured with {name}={options[name]}, the supernet has {value}")


def _latency_options(args: argparse.Namespace, predictor: LatencyPredictor) -> LatencyOptions:
    """As the predictor's measurements were made, with their number of threads where torch chose it."""
    try:
        options = dict(predictor.measured["options"])
        if options["threads"] is None and options["device"] == "cpu":
            torch.set_num_threads(predictor.measured["machine"]["threads"])
        return LatencyOptions(**options)
    except (KeyError, TypeError, RuntimeError):
        raise InputError(f"predictor {args.predictor}: it does not say how its latencies were measured") from None


def _folders(args: argparse.Namespace) -> Path:
    """Make the folder of the results and that of the judged subnets; returns the second."""
    cache = Path(args.cache) if args.cache else Path(args.path).resolve().parent / "subnet-evaluations"
    for name, folder in (("output", Path(args.output)), ("cache", cache)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{name} {folder}: cannot be made ({error.strerror or error})") from None
    return cache


def _costs_by(
    evaluator: SubnetEvaluator, predictor: LatencyPredictor | None
) -> Callable[[Sequence[Subnet]], list[dict[str, float]]]:
    cfg, task = evaluator.model.cfg, evaluator.task
    names = [name for name in CostOptions.__dataclass_fields__ if hasattr(cfg, name)]
    options = CostOptions(
        vocab_size=len(task.source_dictionary),
        tgt_vocab_size=len(task.target_dictionary),
        **{name: getattr(cfg, name) for name in names},
    )

    def costs(subnets: Sequence[Subnet]) -> list[dict[str, float]]:
        found: list[dict[str, Any]] = [subnet_cost(subnet, options).to_dict() for subnet in subnets]
        if predictor is not None:
            for row, latency_ms in zip(found, predictor.predict(subnets).tolist(), strict=True):
                row["latency_ms"] = latency_ms
        return found

    return costs


def _search(candidates: Candidates, options: AlgorithmOptions, show: Callable[[int, float], object]) -> Subnet | None:
    """The best subnet, or None where the algorithm looks for a front."""
    if isinstance(options, EvolutionOptions):
        return evolve(candidates, options, show)
    if isinstance(options, RandomOptions):
        return random_search(candidates, options.num_subnets, options.seed)
    pareto_search(candidates, options, show)
    return None


def _measure(args: argparse.Namespace, results: dict[str, Any], predictor: LatencyPredictor) -> None:
    """Measured latencies of the best subnet and the front, into ``results``."""
    assert predictor.space is not None
    rows = (results["best"], *results["front"])
    subnets = {subnet.key: subnet for subnet in (Subnet.from_dict(found["architecture"]) for found in rows)}
    options = _latency_options(args, predictor)
    with tqdm(total=REPEATS * len(subnets), unit="run", desc="measuring") as bar:
        found = measure_to_file(
            args.measure_front, predictor.space, list(subnets.values()), options, REPEATS, lambda row: bar.update()
        )
    add_measured(results, {subnet.key: ms for subnet, ms in zip(found.subnets, found.latency_ms, strict=True)})


def _print(args: argparse.Namespace, results: dict[str, Any]) -> None:
    output = Path(args.output)
    if args.json:
        print(json.dumps(results["best"] | {"judged": results["judged"], "front_size": len(results["front"])}))
        return
    best = results["best"]
    keys = ("latency_ms", "measured_latency_ms", *COST_KEYS[1:])
    costs = ", ".join(f"{key} {best[key]:.6g}" for key in keys if best.get(key) is not None)
    print(f"best of {results['judged']} subnets: {results['objective']} {best[results['objective']]:.4f}, {costs}")
    print(Subnet.from_dict(best["architecture"]).summary())
    print(f"front of {len(results['front'])} subnets: {output / 'front.html'}, front.png, front.jsonl")
    print(f"best: {output / 'best.yaml'}")
