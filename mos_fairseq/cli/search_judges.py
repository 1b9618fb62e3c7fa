"""What judges and prices the subnets of ``mos-search``: evaluators, worker processes, predictors."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from mos_fairseq.cli import start
from mos_fairseq.cost import CostOptions, subnet_cost
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.options import EvaluationOptions
from mos_fairseq.model_options import ModelOptions
from mos_fairseq.search_space import Subnet

if TYPE_CHECKING:
    from mos_fairseq.evaluation.evaluator import SubnetEvaluator
    from mos_fairseq.latency import LatencyPredictor, SplitLatency
    from mos_fairseq.nas.workers import Workers


def evaluator_of_process(
    path: str, data: str, options: EvaluationOptions, device: str | None, rank: int
) -> SubnetEvaluator:
    """Return the evaluator of one process, which may be a worker; several processes share the GPUs."""
    start()
    import torch

    from mos_fairseq.evaluation.evaluator import SubnetEvaluator

    if device is None:
        device = f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    return SubnetEvaluator(path, data, options, device)


def judges(
    args: argparse.Namespace, prepare: Callable[[int], SubnetEvaluator], stack: ExitStack
) -> tuple[SubnetEvaluator | None, Workers | None]:
    """Return this process's evaluator, and the workers if there are any. They end with ``stack``. A process that
    torchrun has started as a worker does its work here; it has no evaluator then."""
    import torch

    from mos_fairseq.nas.workers import Workers, launched, serve, started

    fleet = launched()
    if fleet is not None and args.workers > 1:
        raise InputError(f"workers is {args.workers}: under torchrun, its processes are the workers")
    all_threads = torch.get_num_threads()
    threads = max(1, all_threads // args.workers)
    torch.set_num_threads(threads)
    stack.callback(torch.set_num_threads, all_threads)  # later measurements use the whole machine
    rank = fleet[1] if fleet else 0
    evaluator = prepare(rank)
    if fleet is not None and rank:
        serve(fleet[0], evaluator.fingerprint(), evaluator.evaluate)
        return None, None
    if fleet is None and args.workers == 1:
        return evaluator, None
    store = fleet[0] if fleet else stack.enter_context(started(args.workers - 1, prepare, threads))
    return evaluator, stack.enter_context(Workers(store, evaluator.fingerprint(), evaluator.evaluate))


def check_predictor(path: str, predictor: LatencyPredictor | None, evaluator: SubnetEvaluator) -> None:
    """Raise InputError unless ``predictor`` was fitted to models like this supernet's subnets."""
    if predictor is None:
        return
    if predictor.space is None or predictor.space.difference(evaluator.space):
        difference = predictor.space and predictor.space.difference(evaluator.space)
        reason = f"another search space: {difference}" if difference else "averaged features"
        raise InputError(f"predictor {path}: fitted on {reason}")
    options, cfg = predictor.measured.get("options", {}), evaluator.model.cfg
    wanted: dict[str, Any] = ModelOptions.values_of(cfg)
    wanted["vocab_size"] = len(evaluator.task.target_dictionary)
    for name, value in wanted.items():
        if name in options and options[name] != value:
            raise InputError(f"predictor {path}: measured with {name}={options[name]}, the supernet has {value}")


def costs_by(
    evaluator: SubnetEvaluator, predictor: LatencyPredictor | None, split: SplitLatency | None
) -> Callable[[Sequence[Subnet]], list[dict[str, float]]]:
    """Return the function of the costs of subnets: counted, and predicted where there is a predictor or a split."""
    model = evaluator.model
    options = CostOptions.of_model(model.cfg, *(len(words) for words in model.dictionaries_of(evaluator.task)))

    def costs(subnets: Sequence[Subnet]) -> list[dict[str, float]]:
        found: list[dict[str, Any]] = [subnet_cost(subnet, options).to_dict() for subnet in subnets]
        if predictor is not None:
            for row, latency_ms in zip(found, predictor.predict(subnets).tolist(), strict=True):
                row["latency_ms"] = latency_ms
            for key, values in predictor.predict_parts(subnets).items():
                for row, value in zip(found, values.tolist(), strict=True):
                    row[key] = value
        if split is not None:
            for row, values in zip(found, split.costs(subnets), strict=True):
                row |= values
        return found

    return costs
