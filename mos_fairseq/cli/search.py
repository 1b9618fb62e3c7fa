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
from mos_fairseq.errors import InputError
from mos_fairseq.export import read_supernet
from mos_fairseq.nas import (
    Candidates,
    Constraint,
    EvolutionOptions,
    LatencyPredictor,
    ParetoOptions,
    evolve,
    pareto_search,
    random_search,
)
from mos_fairseq.nas.constraints import COST_KEYS
from mos_fairseq.nas.evaluator import OBJECTIVES, EvaluationOptions, SubnetEvaluator
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
ALGORITHMS = ("evolution", "nsga2", "random")


def get_parser() -> argparse.ArgumentParser:
    """The command line of ``mos-search``."""
    parser = argparse.ArgumentParser(
        prog="mos-search",
        description="Search a trained supernet for the best subnet within budgets, or for the front of quality against "
        "a cost. Subnets are judged with the weights they inherit; each is judged once, also across runs. An "
        "interrupted search goes on when it is started again.",
        allow_abbrev=False,
    )
    parser.add_argument("data", help="folder that fairseq-preprocess made")
    parser.add_argument("--path", required=True, metavar="CKPT", help="the supernet's checkpoint")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--constraint",
        action="append",
        default=[],
        metavar="KEY<=N",
        help=f"a budget, as in 'latency_ms<=40'; may be given several times; KEY is one of {', '.join(COST_KEYS)}",
    )
    parser.add_argument("--predictor", metavar="JSON", help="of mos-latency fit: needed for latency_ms")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="evolution", help="default: %(default)s")
    parser.add_argument("--objective", choices=OBJECTIVES, default="loss", help="quality (default: %(default)s)")
    parser.add_argument(
        "--cost",
        choices=COST_KEYS,
        help="what the front trades quality against (default: latency_ms with a predictor, or else flops)",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="folder of judged subnets, shared by all searches of a checkpoint (default: subnet-evaluations beside it)",
    )
    parser.add_argument(
        "--measure-front",
        metavar="JSONL",
        help="measure the front's subnets on this machine too, as the predictor's were; FILE of mos-latency measure, "
        "which is continued, or a new one",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that judge subnets (default: 1); for several machines, start mos-search with torchrun instead",
    )
    parser.add_argument("--device", help="to judge on, as in cuda:0 (default: the GPUs, or else the CPU)")
    _add_algorithm_options(parser)
    _add_evaluation_options(parser)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the search (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_algorithm_options(parser: argparse.ArgumentParser) -> None:
    hat = EvolutionOptions()
    parser.add_argument(
        "--population-size", type=int, default=hat.population_size, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--iterations", type=int, default=hat.iterations, metavar="N", help="default: %(default)s")
    parser.add_argument("--parents", type=int, default=hat.parents, metavar="N", help="evolution; default: %(default)s")
    for name in ("mutations", "crossovers"):
        default = getattr(hat, name)
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"children a generation; default: {default}"
        )
    parser.add_argument(
        "--mutation-prob", type=float, default=hat.mutation_prob, metavar="P", help="evolution; default: %(default)s"
    )
    parser.add_argument(
        "--num-subnets", type=int, default=1000, metavar="N", help="of random search (default: %(default)s)"
    )


def _add_evaluation_options(parser: argparse.ArgumentParser) -> None:
    defaults = EvaluationOptions()
    parser.add_argument("--valid-subset", default="valid", metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--valid-samples", type=int, metavar="N", help="judge on N sentence pairs, always the same (default: all)"
    )
    parser.add_argument("--max-tokens", type=int, default=defaults.max_tokens, metavar="N", help="default: %(default)s")
    parser.add_argument("--beam", type=int, default=defaults.beam, metavar="N", help="for bleu (default: %(default)s)")
    parser.add_argument("--remove-bpe", nargs="?", const="@@ ", metavar="SYMBOL", help="for bleu, as fairseq's option")


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
    options = _algorithm_options(args, cost)
    predictor = LatencyPredictor.load(args.predictor) if args.predictor else None
    if predictor is None and "latency_ms" in {cost, *(constraint.key for constraint in constraints)}:
        raise InputError("latency_ms needs a predictor: --predictor FILE (of mos-latency fit)")
    if args.measure_front and predictor is None:
        raise InputError("measure_front needs a predictor, which says how to measure: --predictor FILE")
    if args.workers < 1:
        raise InputError(f"workers is {args.workers}: allowed are whole numbers from 1")
    read_supernet(args.path)  # tells what it is instead, if it is none
    prepare = partial(_evaluator, args.path, args.data, _evaluation_options(args), args.device)
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
        judged = stack.enter_context(JudgedSubnets(path, evaluator, workers))
        candidates = Candidates(
            evaluator.space, _costs_by(evaluator, predictor), judged.evaluate, constraints, known=judged.known
        )
        best = _search(args.algorithm, candidates, options, judged.show)
    results = report(candidates, best, cost, args.objective)
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


def _algorithm_options(args: argparse.Namespace, cost: str) -> EvolutionOptions | ParetoOptions | tuple[int, int]:
    if args.algorithm == "evolution":
        names = ("population_size", "parents", "mutations", "mutation_prob", "crossovers", "iterations", "seed")
        return EvolutionOptions(**{name: getattr(args, name) for name in names})
    if args.algorithm == "nsga2":
        return ParetoOptions(cost, args.population_size, args.iterations, args.seed)
    if args.seed < 0:
        raise InputError(f"seed is {args.seed}: allowed are whole numbers from 0")
    if args.num_subnets < 1:
        raise InputError(f"num_subnets is {args.num_subnets}: allowed are whole numbers from 1")
    return args.num_subnets, args.seed


def _evaluation_options(args: argparse.Namespace) -> EvaluationOptions:
    names = ("objective", "valid_subset", "valid_samples", "max_tokens", "beam", "remove_bpe")
    return EvaluationOptions(**{name: getattr(args, name) for name in names})


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


def _search(algorithm: str, candidates: Candidates, options, show: Callable[[int, float], object]) -> Subnet | None:
    """The best subnet, or None where the algorithm looks for a front."""
    if algorithm == "evolution":
        return evolve(candidates, options, show)
    if algorithm == "random":
        return random_search(candidates, *options)
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
