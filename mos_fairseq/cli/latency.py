"""``mos-latency``: measure subnets, fit a predictor, predict, and report on a predictor."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, fields, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from mos_fairseq.cli import check_output, check_seed, start, warn
from mos_fairseq.cli.latency_options import get_parser
from mos_fairseq.errors import InputError, below_one
from mos_fairseq.figures import new_figure, save_figure
from mos_fairseq.latency import LatencyOptions, first_difference, read_hat_csv, read_latencies
from mos_fairseq.progress import progress
from mos_fairseq.search_space import SearchSpace, Subnet, resolve_subnet, split_specs

if TYPE_CHECKING:
    from mos_fairseq.latency import Features, LatencyPredictor

_ENOUGH = 10  # held-out subnets for a meaningful score: with fewer, one pair decides
_PARTS = {"training": "that it was fitted to", "held_out": "held out by `fit`", "new": "that `fit` did not have"}


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(argv)
    {"measure": _measure, "fit": _fit, "predict": _predict, "report": _report}[args.command](args)


def _measure(args: argparse.Namespace) -> None:
    space = SearchSpace.from_spec(args.search_space)
    if args.subnet is not None:
        if args.seed is not None:
            raise InputError(f"seed is {args.seed}: it has no effect with --subnet, only with --num-subnets")
        subnets = [resolve_subnet(spec, space) for spec in split_specs(args.subnet)]
    else:
        subnets = random_subnets(space, args.num_subnets, 1 if args.seed is None else args.seed)
    options = LatencyOptions(**{option.name: getattr(args, option.name) for option in fields(LatencyOptions)})
    options = options.of_family(space.family)
    start()
    from mos_fairseq.latency import measure_to_file

    with progress(total=len(subnets) * args.repeats, unit="run", desc="measuring") as bar:

        def show(row: dict[str, Any]) -> None:
            bar.set_postfix(reference=f"{row['reference_ms']:.1f} ms", refresh=False)
            bar.update()

        found = measure_to_file(args.output, space, subnets, options, args.repeats, show)
    latencies = found.latency_ms
    spread = "" if found.repeats_std is None else f"; repeats of a subnet differ by {found.repeats_std:.1f} % (std)"
    print(f"{args.output}: {len(latencies)} subnets, {min(latencies):.2f} to {max(latencies):.2f} ms{spread}")
    warn(found.busy())


def random_subnets(space: SearchSpace, number: int, seed: int) -> list[Subnet]:
    """Return the largest, the smallest and distinct random subnets of ``space``, ``number`` in all.

    Raises:
        InputError: ``number`` is below two, or larger than the space.
    """
    check_seed(seed)
    if not 2 <= number <= space.size:
        raise InputError(f"num_subnets is {number}: allowed are whole numbers from 2 to the {space.size} of the space")
    if number > space.size // 2:  # drawing would take long to find the last subnets
        return [space.largest(), space.smallest(), *_others(space, number - 2, seed)]
    subnets = {subnet.key: subnet for subnet in (space.largest(), space.smallest())}
    draw = 0
    while len(subnets) < number:
        subnet = space.sample_subnet("latency", seed, draw)
        subnets[subnet.key] = subnet
        draw += 1
    return list(subnets.values())


def _others(space: SearchSpace, number: int, seed: int) -> list[Subnet]:
    others = [subnet for subnet in space.iterate() if subnet not in (space.largest(), space.smallest())]
    order = np.random.default_rng(seed).permutation(len(others))[:number]
    return [others[index] for index in order]


@dataclass(frozen=True)
class _Rows:
    """A file of measurements: latencies in ms [n] and keys [n], a subnet's key or only the averages of a row.
    ``space`` is None for averages. ``measured``: options, machine, kernels and the reference's time; ``busy``: signs of
    a disturbed measurement."""

    features: Features
    latency_ms: np.ndarray
    keys: np.ndarray
    space: SearchSpace | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    parts_ms: dict[str, np.ndarray] = field(default_factory=dict)
    busy: str | None = None

    @classmethod
    def read(cls, path: str, predictor: LatencyPredictor | None = None) -> _Rows:
        """Read a file; with a predictor, at the speed that the machine had in its measurements."""
        from mos_fairseq.latency import Features

        if path.endswith(".csv"):
            averages, latencies = read_hat_csv(path)
            return cls(Features.of_averages(averages), np.array(latencies), np.array(list(map(json.dumps, averages))))
        data = read_latencies(path).at_speed_of(predictor.measured if predictor is not None else {})
        features = Features.of_subnets(data.subnets, data.space)
        keys = np.array([subnet.key for subnet in data.subnets])
        parts = {name: np.array(values) for name, values in data.parts_ms.items()}
        return cls(features, np.array(data.latency_ms), keys, data.space, data.measured, parts, data.busy())


def _fit(args: argparse.Namespace) -> None:
    from mos_fairseq.latency import MODELS, doubts, fit_predictor, score

    check_seed(args.seed)
    below_one(held_out=args.held_out)
    check_output(args.output, data=args.data)
    rows = _Rows.read(args.data)
    latencies, keys = rows.latency_ms, rows.keys
    order = np.random.default_rng(args.seed).permutation(len(latencies))
    number = round(args.held_out * len(latencies))
    test, train = np.sort(order[:number]), np.sort(order[number:])
    _check_number(len(latencies), number, args.held_out)
    if args.plot and not number:
        raise InputError(f"held_out is {args.held_out}: --plot draws held-out subnets, and there are none")
    if args.target == "split" and not rows.parts_ms:
        raise InputError(f"{args.data}: target is split, but encoder and decoder were not timed apart in this file")
    targets = {"latency_ms": latencies} | (rows.parts_ms if args.target == "split" else {})
    fitted = {}
    total = args.folds * len(targets)
    with progress(total=total, unit="fold", desc="cross-validating", disable=None, leave=False) as bar:
        for name, values in targets.items():
            fitted[name], _ = fit_predictor(
                rows.features.take(train), values[train], rows.space, args.folds, args.seed, on_fold=bar.update
            )
    predictor = fitted.pop("latency_ms")
    parts = {"training": tuple(keys[train].tolist()), "held_out": tuple(keys[test].tolist())}
    predictor = replace(predictor, measured=rows.measured, **parts, parts=fitted)
    results = {"family": predictor.family, "subnets": len(train), "cross_validation": predictor.scores}
    if number:
        predicted = predictor.predict_features(rows.features.take(test))
        scores = score(latencies[test], predicted)
        if args.plot:
            plot_predictions(latencies[test], predicted, scores, args.plot)
        results |= {"held_out_subnets": number, "held_out": scores}
    for name, part in fitted.items():
        results[name] = {"family": part.family, "cross_validation": part.scores}
        if number:
            results[name]["held_out"] = score(targets[name][test], part.predict_features(rows.features.take(test)))
    predictor.save(args.output)
    warn(rows.busy)
    for name, part in {"latency_ms": predictor, **fitted}.items():
        judged = results.get(name, results).get("held_out") if number >= _ENOUGH else None
        found = ({"of held-out subnets": judged} if judged else {}) | {"in cross-validation": part.scores[part.family]}
        warn(doubts(found, f"the predictor of {name}" if name in fitted else "the predictor"))
    if args.json:
        print(json.dumps(results))
        return
    print(f"{args.output}: fitted to {len(train)} subnets; cross-validated in {args.folds} folds:")
    for family in MODELS:
        print(f"  {family:9s} {_text(predictor.scores[family])}{'  <- chosen' if family == predictor.family else ''}")
    if number:
        print(f"  on {number} held-out subnets: {_text(scores)}")
    for name, part in fitted.items():
        print(f"  {name} alone, {part.family}: {_text(results[name].get('held_out', part.scores[part.family]))}")


def _check_number(measured: int, held_out: int, part: float) -> None:
    """Raise InputError if too few subnets are left to fit a predictor."""
    from mos_fairseq.latency.predictor import MIN_SUBNETS

    left = measured - held_out
    if left < MIN_SUBNETS and held_out:
        enough = next(number for number in count(MIN_SUBNETS) if number - round(part * number) >= MIN_SUBNETS)
        raise InputError(
            f"{measured} subnets are measured, {held_out} of them are held out: {left} are left to fit a predictor to, "
            f"{MIN_SUBNETS} are needed (measure {enough} or more: mos-latency measure --num-subnets {enough})"
        )


def _text(scores: dict[str, float]) -> str:
    tau, r2 = scores["kendall_tau"], scores["r2"]
    return f"MAPE {scores['mape']:.2f} %  RMSE {scores['rmse']:.3f} ms  Kendall tau {tau:.3f}  R^2 {r2:.4f}"


def _predict(args: argparse.Namespace) -> None:
    from mos_fairseq.latency import LatencyPredictor

    predictor = LatencyPredictor.load(args.predictor)
    if predictor.space is None:
        raise InputError(f"{args.predictor}: fitted on averaged features, without a search space for subnets")
    specs = split_specs(args.subnet)
    subnets = [resolve_subnet(spec, predictor.space) for spec in specs]
    parts = predictor.predict_parts(subnets)
    for index, latency_ms in enumerate(predictor.predict(subnets).tolist()):
        apart = {name: float(values[index]) for name, values in parts.items()}
        if args.json:
            row = {"subnet": specs[index], "latency_ms": latency_ms, **apart}
            print(json.dumps(row | {"architecture": subnets[index].to_dict()}))
        else:
            more = "".join(f", {name.removesuffix('_ms')} {ms:.2f} ms" for name, ms in apart.items())
            print(f"{specs[index]}  {latency_ms:.2f} ms{more}")


def _report(args: argparse.Namespace) -> None:
    from mos_fairseq.latency import LatencyPredictor, doubts, score

    predictor = LatencyPredictor.load(args.predictor)
    rows = _Rows.read(args.data, predictor)
    latencies, measured = rows.latency_ms, rows.measured
    if (rows.space is None) != (predictor.space is None):
        raise InputError(f"{args.data}: the predictor was fitted on another kind of file (subnets or averages)")
    if rows.space is not None and (difference := predictor.space.difference(rows.space)):
        raise InputError(f"{args.data}: measured on another search space than the predictor's: {difference}")
    if predictor.measured and (found := first_difference(predictor.measured, measured)):
        what, old, new = found
        raise InputError(
            f"{args.data}: measured with {what}={new}, the predictor was fitted to measurements with {old}"
        )
    predicted = predictor.predict_features(rows.features)
    scores = score(latencies, predicted)
    if args.plot:
        plot_predictions(latencies, predicted, scores, args.plot)
    parts = {
        part: {"subnets": int(chosen.sum())} | score(latencies[chosen], predicted[chosen])
        for part, chosen in _parts(predictor, rows.keys).items()
        if chosen.any()
    }
    warn(rows.busy)
    new = {_PARTS[part]: found for part, found in parts.items() if part != "training"}
    unseen = new or ({} if parts else {"in this file": {"subnets": len(latencies)} | scores})
    warn(doubts({f"of subnets {where}": found for where, found in unseen.items() if found["subnets"] >= _ENOUGH}))
    if args.json:
        print(json.dumps(scores | parts))
        return
    print(f"{len(latencies)} subnets: {_text(scores)}")
    for part, found in parts.items():
        print(f"  {found['subnets']} {_PARTS[part]}: {_text(found)}")


def _parts(predictor: LatencyPredictor, keys: np.ndarray) -> dict[str, np.ndarray]:
    """Return the rows [n] in each part of `fit`'s data; empty if the predictor has no record of the parts.

    A row in both parts, which averages allow, counts as training: its prediction is no test.
    """
    if not predictor.training:
        return {}
    training = np.isin(keys, predictor.training)
    held_out = np.isin(keys, predictor.held_out) & ~training
    return {"training": training, "held_out": held_out, "new": ~(training | held_out)}


def plot_predictions(measured: np.ndarray, predicted: np.ndarray, scores: dict[str, float], path: str) -> None:
    """Plot predicted against measured latency. Raises InputError if the file cannot be written."""
    figure = new_figure(5, 5)
    axes = figure.add_subplot()
    ends = [0.95 * min(measured.min(), predicted.min()), 1.05 * max(measured.max(), predicted.max())]
    axes.plot(ends, ends, color="0.6", linewidth=1)
    axes.scatter(measured, predicted, s=8)
    axes.set(xlabel="measured latency [ms]", ylabel="predicted latency [ms]", xlim=ends, ylim=ends)
    axes.set_title(f"MAPE {scores['mape']:.2f} %, Kendall tau {scores['kendall_tau']:.3f}")
    save_figure(figure, path)
