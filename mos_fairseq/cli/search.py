"""``mos-search``: the best subnets of a trained supernet within budgets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mos_fairseq.benchmark import CostOptions, subnet_cost
from mos_fairseq.errors import InputError
from mos_fairseq.files import write_atomically
from mos_fairseq.jsonl import JsonlWriter, read_jsonl
from mos_fairseq.nas import (
    Candidates,
    Constraint,
    EvolutionOptions,
    LatencyPredictor,
    ParetoOptions,
    evolve,
    front,
    pareto_search,
    random_search,
)
from mos_fairseq.nas.constraints import COST_KEYS
from mos_fairseq.nas.evaluator import OBJECTIVES, EvaluationOptions, SubnetEvaluator
from mos_fairseq.search_space import Subnet

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
    constraints = [Constraint.parse(text) for text in args.constraint]
    cost = args.cost or ("latency_ms" if args.predictor else "flops")
    options = _algorithm_options(args, cost)
    predictor = LatencyPredictor.load(args.predictor) if args.predictor else None
    if predictor is None and "latency_ms" in {cost, *(constraint.key for constraint in constraints)}:
        raise InputError("latency_ms needs a predictor: --predictor FILE (of mos-latency fit)")
    evaluator = SubnetEvaluator(args.path, args.data, _evaluation_options(args))
    if predictor is not None:
        if predictor.space is None or (difference := predictor.space.difference(evaluator.space)):
            reason = "averaged features" if predictor.space is None else f"another search space: {difference}"
            raise InputError(f"predictor {args.predictor}: fitted on {reason}")
    output = Path(args.output)
    cache = Path(args.cache) if args.cache else Path(args.path).resolve().parent / "subnet-evaluations"
    for name, folder in (("output", output), ("cache", cache)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{name} {folder}: cannot be made ({error.strerror or error})") from None
    with JudgedSubnets(cache / f"{evaluator.fingerprint()}.jsonl", evaluator) as judged:
        candidates = Candidates(
            evaluator.space, _costs_by(evaluator, predictor), judged.evaluate, constraints, known=judged.known
        )
        best = _search(args.algorithm, candidates, options, judged)
        results = report(candidates, best, cost, args.objective)
        seen = [_point(candidates, subnet, cost) for subnet in candidates.seen.values()]
    write_results(output, results)
    plot_front(seen, results, output / "front.png")
    _print(args, results, output)


def _algorithm_options(args: argparse.Namespace, cost: str) -> EvolutionOptions | ParetoOptions | tuple[int, int]:
    if args.algorithm == "evolution":
        names = ("population_size", "parents", "mutations", "mutation_prob", "crossovers", "iterations", "seed")
        return EvolutionOptions(**{name: getattr(args, name) for name in names})
    if args.algorithm == "nsga2":
        return ParetoOptions(cost, args.population_size, args.iterations, args.seed)
    if args.num_subnets < 1:
        raise InputError(f"num_subnets is {args.num_subnets}: allowed are whole numbers from 1")
    return args.num_subnets, args.seed


def _evaluation_options(args: argparse.Namespace) -> EvaluationOptions:
    names = ("objective", "valid_subset", "valid_samples", "max_tokens", "beam", "remove_bpe")
    return EvaluationOptions(**{name: getattr(args, name) for name in names})


class JudgedSubnets:
    """Losses of subnets on disk, by canonical key, so that no run of the same checkpoint and data judges one again."""

    def __init__(self, path: Path, evaluator: SubnetEvaluator) -> None:
        self.evaluator = evaluator
        self.bar: tqdm | None = None  # once there is something to show
        rows = read_jsonl(path) if path.exists() else []
        try:
            self.known = {str(row["key"]): float(row["loss"]) for row in rows}
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}: not a file of judged subnets; remove it to judge them again") from None
        self.writer = JsonlWriter(path)

    def evaluate(self, subnets: Sequence[Subnet]) -> list[float]:
        """Losses, each written before the next is begun."""
        sign = -1.0 if self.evaluator.options.objective == "bleu" else 1.0
        losses = []
        if self.bar is None:
            self.bar = tqdm(unit="subnet", desc="judging")
        for subnet in subnets:
            losses.append(sign * self.evaluator.evaluate(subnet))
            self.writer.append({"key": subnet.key, "loss": losses[-1]})
            self.bar.update()
        return losses

    def __enter__(self) -> JudgedSubnets:
        return self

    def __exit__(self, *exception: object) -> None:
        self.writer.close()
        if self.bar is not None:
            self.bar.close()


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


def _search(algorithm: str, candidates: Candidates, options, judged: JudgedSubnets) -> Subnet | None:
    """The best subnet, or None where the algorithm looks for a front."""

    def show(generation: int, loss: float) -> None:
        if judged.bar is not None:
            judged.bar.set_postfix(generation=generation, best=f"{abs(loss):.4g}")

    if algorithm == "evolution":
        return evolve(candidates, options, show)
    if algorithm == "random":
        return random_search(candidates, *options)
    pareto_search(candidates, options, show)
    return None


def report(candidates: Candidates, best: Subnet | None, cost: str, objective: str) -> dict[str, Any]:
    """Best subnet, front and everything judged in this run, as plain data."""
    seen = list(candidates.seen.values())
    chosen = best or min(seen, key=lambda subnet: candidates.known[subnet.key])

    def row(subnet: Subnet) -> dict[str, Any]:
        quality = abs(candidates.known[subnet.key])
        return {objective: quality} | candidates.costs_of([subnet])[0] | {"architecture": subnet.to_dict()}

    return {
        "best": row(chosen),
        "front": [row(subnet) for subnet in front(candidates, seen, cost)],
        "judged": len(seen),
        "objective": objective,
        "cost": cost,
    }


def _point(candidates: Candidates, subnet: Subnet, cost: str) -> tuple[float, float]:
    return candidates.costs_of([subnet])[0][cost], abs(candidates.known[subnet.key])


def plot_front(seen: list[tuple[float, float]], results: dict[str, Any], path: Path) -> None:
    """Draw all judged subnets, (cost, quality) each, and the front."""
    from matplotlib.figure import Figure

    cost, objective = results["cost"], results["objective"]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(*zip(*seen, strict=True), s=8, color="0.7", label="judged subnets")
    front_points = [(row[cost], row[objective]) for row in results["front"]]
    axes.plot(*zip(*front_points, strict=True), marker="o", markersize=4, label="front")
    axes.plot(results["best"][cost], results["best"][objective], marker="*", markersize=12, label="best")
    axes.set(xlabel=cost, ylabel="validation loss [bits per token]" if objective == "loss" else "validation BLEU")
    axes.legend()
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))


def write_results(output: Path, results: dict[str, Any]) -> None:
    """``best.yaml``, ``front.jsonl`` and ``search.json`` in the folder ``output``."""
    Subnet.from_dict(results["best"]["architecture"]).save(output / "best.yaml")
    lines = [json.dumps(row, allow_nan=False) for row in results["front"]]
    write_atomically(output / "front.jsonl", "".join(line + "\n" for line in lines))
    write_atomically(output / "search.json", json.dumps(results, indent=1, allow_nan=False) + "\n")


def _print(args: argparse.Namespace, results: dict[str, Any], output: Path) -> None:
    if args.json:
        print(json.dumps(results["best"] | {"judged": results["judged"], "front_size": len(results["front"])}))
        return
    best = results["best"]
    costs = ", ".join(f"{key} {best[key]:.6g}" for key in COST_KEYS if best.get(key) is not None)
    print(f"best of {results['judged']} subnets: {results['objective']} {best[results['objective']]:.4f}, {costs}")
    print(Subnet.from_dict(best["architecture"]).summary())
    print(f"{output / 'best.yaml'}; front of {len(results['front'])} subnets: {output / 'front.jsonl'}, front.png")
