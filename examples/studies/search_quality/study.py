#!/usr/bin/env python3
"""Regret against the number of judged subnets, of all search algorithms, on a space that was judged whole.

    study.py table JUDGED_DIR TABLE     the losses of all subnets of space.yaml, from the folder that run.sh judged into
    study.py run TABLE ROWS             every algorithm on the table, 3 budgets x 5 seeds: seconds each, no supernet
    study.py report ROWS [PNG]          tables of the figures, and their plot
    study.py large CHECKPOINT DATA CACHE ROWS
                                        the same at equal numbers of judged subnets, on a supernet of large_space.yaml,
                                        which no one can judge whole: one budget, 3 seeds; killed, it goes on

table.json beside this file is what run.sh judged here, so that `run` and `report` need no training. The regret of a
search after n judged subnets is the loss of its best until then less that of the best subnet within the budget, which
the table tells. Budgets are FLOPs: a quarter, a half and three quarters of the way from the smallest to the largest.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

from mos_fairseq.cost import subnet_cost  # noqa: E402
from mos_fairseq.figures import new_figure, save_figure  # noqa: E402
from mos_fairseq.nas import (  # noqa: E402
    AsngOptions,
    Candidates,
    Constraint,
    EvolutionOptions,
    LinasOptions,
    ParetoOptions,
    asng_search,
    evolve,
    front,
    hypervolume,
    linas_search,
    pareto_search,
    random_search,
)
from mos_fairseq.search_space import SearchSpace, Subnet  # noqa: E402

HERE = Path(__file__).parent
COST = "flops_without_output_projection"
PARTS = (0.25, 0.5, 0.75)
SEEDS = (1, 2, 3, 4, 5)
MOST = 240  # judged subnets of a search
LARGE_MOST, LARGE_SAMPLES = 120, 50
SHOWN = (20, 40, 60, 80, 120, 160, 240)


def costs(subnets: Sequence[Subnet]) -> list[dict[str, float]]:
    """FLOPs of each subnet."""
    return [{COST: getattr(subnet_cost(subnet), COST)} for subnet in subnets]


class Enough(Exception):
    """As many as there may be were judged."""


class Judge:
    """Counts what is judged, in the order of judging."""

    def __init__(self, losses: Callable[[Subnet], float], most: int) -> None:
        self.losses, self.most = losses, most
        self.subnets: list[Subnet] = []
        self.found: list[float] = []

    def __call__(self, subnets: Sequence[Subnet]) -> list[float]:
        found = []
        for subnet in subnets:
            if len(self.subnets) == self.most:
                raise Enough
            found.append(self.losses(subnet))
            self.subnets.append(subnet)
            self.found.append(found[-1])
        return found


# Small settings, of as many judged subnets as this space needs; those that evolution had in run.sh come first.
def evolution(candidates: Candidates, seed: int) -> None:
    """HAT's, in small."""
    evolve(candidates, EvolutionOptions(30, 10, 15, 0.3, 15, 4, seed))


def linas(candidates: Candidates, seed: int) -> None:
    """LINAS in batches of 15."""
    linas_search(candidates, LinasOptions(population_size=15, iterations=9, seed=seed))


def asng(candidates: Candidates, seed: int) -> None:
    """ASNG with two samples a step."""
    asng_search(candidates, AsngOptions(iterations=1500, seed=seed))


def drawn(candidates: Candidates, seed: int) -> None:
    """Random draws."""
    random_search(candidates, MOST, seed)


def nsga2(candidates: Candidates, seed: int) -> None:
    """NSGA-II for the front."""
    pareto_search(candidates, ParetoOptions(COST, 30, 40, seed))


def linas_front(candidates: Candidates, seed: int) -> None:
    """LINAS for the front, in batches of 30."""
    linas_search(candidates, LinasOptions(COST, 30, 7, "nsga2", seed=seed))


SINGLE = {"evolution": evolution, "linas": linas, "asng": asng, "random": drawn}
FRONT = {"nsga2": nsga2, "linas": linas_front, "random": drawn}


def run(losses: dict[str, float], space: SearchSpace) -> dict[str, Any]:
    """The rows of all searches."""
    subnets = list(space.iterate())
    everything = Candidates(space, costs, lambda wanted: [losses[s.key] for s in wanted])
    low, high = (costs([subnet])[0][COST] for subnet in (space.smallest(), space.largest()))
    rows: list[dict[str, Any]] = []
    for part in PARTS:
        constraint = Constraint(COST, low + part * (high - low))
        found = costs(subnets)
        kept = [losses[s.key] for s, cost in zip(subnets, found, strict=True) if constraint.excess(cost) <= 0]
        for name, search in SINGLE.items():
            for seed in SEEDS:
                judge = searched(search, space, losses, [constraint], seed).evaluate
                regret = (np.minimum.accumulate(judge.found) - min(kept)).round(6).tolist()
                rows.append({"algorithm": name, "budget": part, "seed": seed, "within": len(kept), "regret": regret})
                print(name, part, seed, len(regret), regret[-1], flush=True)
    worst = (max(losses.values()), high)
    best_area = hypervolume(everything, front(everything, subnets, COST), COST, worst)
    for name, search in FRONT.items():
        for seed in SEEDS:
            judge = searched(search, space, losses, [], seed).evaluate
            areas = {}
            for number in (n for n in SHOWN if n <= len(judge.subnets)):
                some = judge.subnets[:number]
                areas[number] = round(hypervolume(everything, some, COST, worst) / best_area, 5)
            rows.append({"algorithm": name, "budget": None, "seed": seed, "hypervolume": areas})
            print(name, "front", seed, areas, flush=True)
    return {"space": space.to_dict(), "rows": rows}


def searched(
    search: Callable, space: SearchSpace, losses: dict[str, float], constraints: list[Constraint], seed: int
) -> Candidates:
    """The candidates of one search."""
    judge = Judge(lambda subnet: losses[subnet.key], MOST)
    candidates = Candidates(space, costs, judge, constraints)
    with suppress(Enough):
        search(candidates, seed)
    return candidates


def run_large(checkpoint: str, data: str, cache: str) -> dict[str, Any]:
    """The best losses of searches in a space of more than 10^12 subnets, as they are judged."""
    from mos_fairseq.cli import start

    start()
    from mos_fairseq.evaluation.evaluator import EvaluationOptions, SubnetEvaluator
    from mos_fairseq.nas.judged import JudgedSubnets

    evaluator = SubnetEvaluator(checkpoint, data, EvaluationOptions(valid_samples=LARGE_SAMPLES))
    space = evaluator.space
    low, high = (costs([subnet])[0][COST] for subnet in (space.smallest(), space.largest()))
    constraints = [Constraint(COST, (low + high) / 2)]
    Path(cache).mkdir(parents=True, exist_ok=True)
    rows = []
    with JudgedSubnets(Path(cache) / f"{evaluator.fingerprint()}.jsonl", evaluator) as judged:
        for seed in SEEDS[:3]:
            for name, search in SINGLE.items():
                judge = Judge(lambda subnet: judged.evaluate([subnet])[0], LARGE_MOST)
                with suppress(Enough):
                    search(Candidates(space, costs, judge, constraints), seed)
                best = np.minimum.accumulate(judge.found).tolist()
                rows.append({"algorithm": name, "seed": seed, "best": best})
                print(name, seed, len(best), best[-1], flush=True)
    return {"space": space.to_dict(), "subnets": space.size, "budget": 0.5, "rows": rows}


def report_large(results: dict[str, Any]) -> None:
    """Print a table in Markdown."""
    rows = results["rows"]
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    print(f"Best loss in bits a token of {results['subnets']:.0e} subnets, mean (lowest-highest of the seeds):\n")
    print("| judged | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for number in (n for n in SHOWN if n <= LARGE_MOST):
        found = [[at(row["best"], number) for row in rows if row["algorithm"] == name] for name in names]
        cells = [f"{statistics.mean(values):.4f} ({min(values):.4f}-{max(values):.4f})" for values in found]
        print(f"| {number} | " + " | ".join(cells) + " |")


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % interval by 5,000 bootstrap samples."""
    rng = np.random.default_rng(1)
    means = rng.choice(values, (5000, len(values))).mean(1)
    return float(np.mean(values)), *map(float, np.percentile(means, (2.5, 97.5)))


def at(regret: list[float], number: int) -> float:
    """After ``number`` judged subnets, or when the search ended."""
    return regret[min(number, len(regret)) - 1]


def report(results: dict[str, Any], png: str | None) -> None:
    """Print tables in Markdown."""
    rows = [row for row in results["rows"] if row["budget"] is not None]
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    print(f"Mean regret in bits a token, {len(rows) // len(names)} searches (95 % interval by bootstrap):\n")
    print("| judged | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for number in SHOWN:
        cells = []
        for name in names:
            mean, low, high = interval([at(r["regret"], number) for r in rows if r["algorithm"] == name])
            cells.append(f"{mean:.4f} ({low:.4f}-{high:.4f})")
        print(f"| {number} | " + " | ".join(cells) + " |")
    print("\nJudged subnets until the very best within the budget was found (of searches that found it):\n")
    print("| budget | subnets within | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names))
    for part in PARTS:
        of_part = [row for row in rows if row["budget"] == part]
        cells = []
        for name in names:
            regrets = [row["regret"] for row in of_part if row["algorithm"] == name]
            found = [regret.index(0.0) + 1 for regret in regrets if 0.0 in regret]
            cells.append(f"{statistics.mean(found):.0f} ({len(found)} of {len(regrets)})" if found else "never")
        print(f"| {part:g} | {of_part[0]['within']} | " + " | ".join(cells) + " |")
    print("\nJudged subnets to reach evolution's final value, in parts of those that evolution judged in all:\n")
    for name in names:
        parts = []
        for base in (row for row in rows if row["algorithm"] == "evolution"):
            (row,) = (
                r for r in rows if r["algorithm"] == name and (r["budget"], r["seed"]) == (base["budget"], base["seed"])
            )
            reached = next((i + 1 for i, value in enumerate(row["regret"]) if value <= base["regret"][-1]), None)
            parts.append(None if reached is None else reached / len(base["regret"]))
        got = [part for part in parts if part is not None]
        mean, low, high = interval(got)
        print(f"* {name}: {mean:.2f} ({low:.2f}-{high:.2f}), reached by {len(got)} of {len(parts)}")
    fronts = [row for row in results["rows"] if row["budget"] is None]
    names = list(dict.fromkeys(row["algorithm"] for row in fronts))
    print("\nHypervolume of the front, in parts of that of all subnets (95 % interval):\n")
    print("| judged | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for number in SHOWN:
        cells = []
        for name in names:
            values = [r["hypervolume"].get(str(number)) for r in fronts if r["algorithm"] == name]
            values = [value for value in values if value is not None]
            cells.append("{:.4f} ({:.4f}-{:.4f})".format(*interval(values)) if values else "-")
        print(f"| {number} | " + " | ".join(cells) + " |")
    if png:
        plot(rows, png)


def plot(rows: list[dict[str, Any]], path: str) -> None:
    """Mean regret against judged subnets, a panel a budget."""
    figure = new_figure(10, 3.5)
    for index, part in enumerate(PARTS):
        axes = figure.add_subplot(1, len(PARTS), index + 1)
        for name in dict.fromkeys(row["algorithm"] for row in rows):
            regrets = [row["regret"] for row in rows if row["algorithm"] == name and row["budget"] == part]
            curves = np.array([[at(regret, n) for n in range(1, MOST + 1)] for regret in regrets])
            axes.plot(range(1, MOST + 1), curves.mean(0), label=name)
            axes.fill_between(range(1, MOST + 1), curves.min(0), curves.max(0), alpha=0.15)
        axes.set(xlabel="judged subnets", title=f"budget at {part:g} of the range")
        axes.set_yscale("symlog", linthresh=1e-3)
        if not index:
            axes.set_ylabel("regret [bits per token]")
            axes.legend()
    save_figure(figure, path)


def main(command: str, source: str, target: str | None = None, *more: str) -> None:
    """Command line."""
    if command == "large":
        write(run_large(source, target, more[0]), more[1])
        return
    space = SearchSpace.from_spec(str(HERE / "space.yaml"))
    if command == "table":
        files = [read(file, space) for file in sorted(Path(source).glob("*.jsonl"))]
        (losses,) = (found for found in files if len(found) == space.size)
        rows = [losses[subnet.key] for subnet in space.iterate()]
        text = json.dumps({"space": space.to_dict(), "losses": rows}, separators=(",", ":"))
        Path(target).write_text(text.replace(',"losses"', ',\n"losses"') + "\n", encoding="utf-8")
    elif command == "run":
        table = json.loads(Path(source).read_text(encoding="utf-8"))
        if table["space"] != space.to_dict():
            sys.exit(f"error: {source} is of another search space than space.yaml")
        losses = {subnet.key: loss for subnet, loss in zip(space.iterate(), table["losses"], strict=True)}
        write(run(losses, space), target)
    else:
        results = json.loads(Path(source).read_text(encoding="utf-8"))
        report_large(results) if "subnets" in results else report(results, target)


def write(results: dict[str, Any], path: str) -> None:
    """As JSON, a search a line."""
    Path(path).write_text(json.dumps(results).replace('{"algorithm"', '\n{"algorithm"') + "\n", encoding="utf-8")


def read(file: Path, space: SearchSpace) -> dict[str, float]:
    """Losses by key, of those of ``space``."""
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {row["key"]: row["loss"] for row in rows if space.contains(Subnet.from_dict(json.loads(row["key"])))}


if __name__ == "__main__":
    allowed = {"table": (4,), "run": (4,), "report": (3, 4), "large": (6,)}
    if len(sys.argv) not in allowed.get(" ".join(sys.argv[1:2]), ()):
        sys.exit(__doc__)
    main(*sys.argv[1:])
