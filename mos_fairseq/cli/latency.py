"""``mos-latency``: measure subnets, fit a predictor, predict, and report on a predictor."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mos_fairseq.benchmark import REPEATS, LatencyOptions, measure_to_file, read_hat_csv, read_latencies
from mos_fairseq.cli import quiet
from mos_fairseq.errors import InputError
from mos_fairseq.files import write_atomically
from mos_fairseq.search_space import SearchSpace, Subnet, resolve_subnet, split_specs

if TYPE_CHECKING:
    from mos_fairseq.nas import LatencyPredictor

_HELP = {
    "vocab_size": "size of the dictionary",
    "batch_size": "sentences translated at once",
    "src_len": "source tokens of a sentence, its end included",
    "tgt_len": "target tokens of a sentence, its end included",
    "beam": "beam width; 1 is greedy search",
    "device": "torch's name of the device, as in cuda:0",
    "threads": "threads of torch on a CPU (default: torch's own choice)",
    "dtype": "float32, float16 or bfloat16",
    "warmup": "runs of a visit that do not count",
    "iterations": "runs of a visit that count, in turn with the reference subnet; a trimmed mean of them is taken",
    "share_all_embeddings": "one table for encoder, decoder and output projection",
    "share_decoder_input_output_embed": "one table for decoder and output projection",
    "encoder_normalize_before": "pre-norm encoder",
    "decoder_normalize_before": "pre-norm decoder",
    "layernorm_embedding": "layer norms on the embeddings",
}
_PARTS = {"training": "that it was fitted to", "held_out": "held out by `fit`", "new": "that `fit` did not have"}


def get_parser() -> argparse.ArgumentParser:
    """The command line of ``mos-latency``."""
    parser = argparse.ArgumentParser(prog="mos-latency", description="Latency of subnets: measured and predicted.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_measure(commands)
    fit = commands.add_parser("fit", help="fit a predictor to measured latencies", allow_abbrev=False)
    fit.add_argument("data", help="file of `measure`, or a CSV file as HAT publishes them")
    fit.add_argument("--output", required=True, metavar="FILE", help="the predictor, as JSON")
    fit.add_argument("--folds", type=int, default=10, metavar="N", help="of the cross-validation (default: 10)")
    fit.add_argument(
        "--held-out", type=float, default=0.2, metavar="P", help="part that only judges the result (default: 0.2)"
    )
    fit.add_argument("--seed", type=int, default=1, metavar="N", help="of folds and held-out part (default: 1)")
    fit.add_argument("--plot", metavar="PNG", help="draw predicted against measured latency of the held-out part")
    fit.add_argument("--json", action="store_true", help="print the scores as JSON")
    predict = commands.add_parser("predict", help="predict the latency of subnets", allow_abbrev=False)
    predict.add_argument("predictor", help="file of `fit`")
    predict.add_argument("--subnet", required=True, metavar="S", help="subnets, separated by commas")
    predict.add_argument("--json", action="store_true", help="one JSON object per subnet and line")
    report = commands.add_parser(
        "report",
        help="compare a predictor with measured latencies",
        description="Compare a predictor with measured latencies: all of the file, and apart what the predictor was "
        "fitted to, what `fit` held out, and what it did not have.",
        allow_abbrev=False,
    )
    report.add_argument("predictor", help="file of `fit`")
    report.add_argument("data", help="file of `measure`, also the one that was fitted to, or HAT's CSV")
    report.add_argument("--plot", metavar="PNG", help="draw predicted against measured latency")
    report.add_argument("--json", action="store_true", help="print the scores as JSON")
    return parser


def _add_measure(commands) -> None:
    measure = commands.add_parser(
        "measure",
        help="time subnets on this machine",
        description="Time subnets on this machine, in turn with a reference subnet, whose drift is divided out. "
        "On a CPU with glibc, set GLIBC_TUNABLES as examples/cpu_env.sh does (memory kept, in huge pages): this is "
        "recommended. The file's first line records it, and a file begun with one setting goes on with the same only.",
        allow_abbrev=False,
    )
    measure.add_argument("--search-space", required=True, metavar="X", help="preset or YAML file")
    measure.add_argument("--output", required=True, metavar="JSONL", help="results; an existing file is continued")
    which = measure.add_mutually_exclusive_group(required=True)
    which.add_argument("--num-subnets", type=int, metavar="N", help="measure N: largest, smallest and random ones")
    which.add_argument("--subnet", metavar="S", help="measure these subnets, separated by commas")
    measure.add_argument(
        "--repeats",
        type=int,
        default=REPEATS,
        metavar="N",
        help="visit every subnet N times, the whole list in another order each time, and take the mean of its visits; "
        "many short visits say more than few long ones (default: %(default)s)",
    )
    measure.add_argument("--seed", type=int, default=1, metavar="N", help="of the random subnets (default: 1)")
    for option in fields(LatencyOptions):
        name, default = f"--{option.name.replace('_', '-')}", option.default
        if isinstance(default, bool):
            measure.add_argument(name, action="store_true", help=_HELP[option.name])
        elif option.name == "vocab_size":
            measure.add_argument(name, type=int, required=True, metavar="N", help=_HELP[option.name])
        else:
            kind = str if isinstance(default, str) else int
            known = "" if default is None else f" (default: {default})"
            measure.add_argument(name, type=kind, default=default, metavar="N", help=_HELP[option.name] + known)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(argv)
    quiet()
    {"measure": _measure, "fit": _fit, "predict": _predict, "report": _report}[args.command](args)


def _measure(args: argparse.Namespace) -> None:
    options = LatencyOptions(**{option.name: getattr(args, option.name) for option in fields(LatencyOptions)})
    space = SearchSpace.from_spec(args.search_space)
    if args.subnet is not None:
        subnets = [resolve_subnet(spec, space) for spec in split_specs(args.subnet)]
    else:
        subnets = random_subnets(space, args.num_subnets, args.seed)
    with tqdm(total=len(subnets) * args.repeats, unit="run", desc="measuring") as bar:

        def show(row: dict[str, Any]) -> None:
            bar.set_postfix(reference=f"{row['reference_ms']:.1f} ms")
            bar.update()

        found = measure_to_file(args.output, space, subnets, options, args.repeats, show)
    latencies = found.latency_ms
    spread = "" if found.repeats_std is None else f"; repeats of a subnet differ by {found.repeats_std:.1f} % (std)"
    print(f"{args.output}: {len(latencies)} subnets, {min(latencies):.2f} to {max(latencies):.2f} ms{spread}")


def random_subnets(space: SearchSpace, number: int, seed: int) -> list[Subnet]:
    """Largest, smallest and distinct random subnets of ``space``, ``number`` in all.

    Raises:
        InputError: fewer than two are wanted, or more than there are.
    """
    _check_seed(seed)
    if not 2 <= number <= space.size:
        raise InputError(f"num_subnets is {number}: allowed are whole numbers from 2 to the {space.size} of the space")
    if number > space.size // 2:  # drawing would take long to find the last
        return [space.largest(), space.smallest(), *_others(space, number - 2, seed)]
    subnets = {subnet.key: subnet for subnet in (space.largest(), space.smallest())}
    draw = 0
    while len(subnets) < number:
        subnet = space.sample_subnet("latency", seed, draw)
        subnets[subnet.key] = subnet
        draw += 1
    return list(subnets.values())


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise InputError(f"seed is {seed}: allowed are whole numbers from 0 to below 2^31")


def _others(space: SearchSpace, number: int, seed: int) -> list[Subnet]:
    others = [subnet for subnet in space.iterate() if subnet not in (space.largest(), space.smallest())]
    order = np.random.default_rng(seed).permutation(len(others))[:number]
    return [others[index] for index in order]


def _read(path: str):
    """(search space or None, features, latencies in ms, options and machine, keys) of a file of measurements.

    A key is a subnet's, or the averages of a row that says no more.
    """
    from mos_fairseq.nas import Features

    if path.endswith(".csv"):
        averages, latencies = read_hat_csv(path)
        return None, Features.of_averages(averages), np.array(latencies), {}, np.array(list(map(json.dumps, averages)))
    data = read_latencies(path)
    keys = np.array([subnet.key for subnet in data.subnets])
    return data.space, Features.of_subnets(data.subnets, data.space), np.array(data.latency_ms), data.measured, keys


def _fit(args: argparse.Namespace) -> None:
    from mos_fairseq.nas import FAMILIES, fit_predictor, score

    _check_seed(args.seed)
    if not 0 <= args.held_out < 1:
        raise InputError(f"held_out is {args.held_out}: allowed are numbers from 0 to below 1")
    space, features, latencies, measured, keys = _read(args.data)
    order = np.random.default_rng(args.seed).permutation(len(latencies))
    count = round(args.held_out * len(latencies))
    test, train = np.sort(order[:count]), np.sort(order[count:])
    if args.plot and not count:
        raise InputError(f"held_out is {args.held_out}: --plot draws held-out subnets, and there are none")
    with tqdm(total=args.folds, unit="fold", desc="cross-validating", disable=None, leave=False) as bar:
        predictor, _ = fit_predictor(
            features.take(train), latencies[train], space, args.folds, args.seed, on_fold=bar.update
        )
    parts = {"training": tuple(keys[train].tolist()), "held_out": tuple(keys[test].tolist())}
    predictor = replace(predictor, measured=measured, **parts)
    results = {"family": predictor.family, "subnets": len(train), "cross_validation": predictor.scores}
    if count:
        predicted = predictor.predict_features(features.take(test))
        scores = score(latencies[test], predicted)
        if args.plot:
            plot_predictions(latencies[test], predicted, scores, args.plot)
        results |= {"held_out_subnets": count, "held_out": scores}
    predictor.save(args.output)
    if args.json:
        print(json.dumps(results))
        return
    print(f"{args.output}: fitted to {len(train)} subnets; cross-validated in {args.folds} folds:")
    for family in FAMILIES:
        print(f"  {family:9s} {_text(predictor.scores[family])}{'  <- chosen' if family == predictor.family else ''}")
    if count:
        print(f"  on {count} held-out subnets: {_text(scores)}")


def _text(scores: dict[str, float]) -> str:
    tau, r2 = scores["kendall_tau"], scores["r2"]
    return f"MAPE {scores['mape']:.2f} %  RMSE {scores['rmse']:.3f} ms  Kendall tau {tau:.3f}  R^2 {r2:.4f}"


def _predict(args: argparse.Namespace) -> None:
    from mos_fairseq.nas import LatencyPredictor

    predictor = LatencyPredictor.load(args.predictor)
    if predictor.space is None:
        raise InputError(f"{args.predictor}: fitted on averaged features, it has no search space to take subnets from")
    specs = split_specs(args.subnet)
    subnets = [resolve_subnet(spec, predictor.space) for spec in specs]
    for spec, subnet, latency_ms in zip(specs, subnets, predictor.predict(subnets).tolist(), strict=True):
        if args.json:
            print(json.dumps({"subnet": spec, "latency_ms": latency_ms, "architecture": subnet.to_dict()}))
        else:
            print(f"{spec}  {latency_ms:.2f} ms")


def _report(args: argparse.Namespace) -> None:
    from mos_fairseq.nas import LatencyPredictor, score

    predictor = LatencyPredictor.load(args.predictor)
    space, features, latencies, measured, keys = _read(args.data)
    if (space is None) != (predictor.space is None):
        raise InputError(f"{args.data}: the predictor was fitted on another kind of file (subnets or averages)")
    if space is not None and (difference := predictor.space.difference(space)):
        raise InputError(f"{args.data}: measured on another search space than the predictor's: {difference}")
    for part, stored in predictor.measured.items():
        for key in sorted(stored.keys() | measured[part].keys()):
            if stored.get(key) != measured[part].get(key):
                raise InputError(
                    f"{args.data}: measured with {part} {key}={measured[part].get(key)}, the predictor was fitted to "
                    f"measurements with {stored.get(key)}"
                )
    predicted = predictor.predict_features(features)
    scores = score(latencies, predicted)
    if args.plot:
        plot_predictions(latencies, predicted, scores, args.plot)
    parts = {
        part: {"subnets": int(rows.sum())} | score(latencies[rows], predicted[rows])
        for part, rows in _parts(predictor, keys).items()
        if rows.any()
    }
    if args.json:
        print(json.dumps(scores | parts))
        return
    print(f"{len(latencies)} subnets: {_text(scores)}")
    for part, found in parts.items():
        print(f"  {found['subnets']} {_PARTS[part]}: {_text(found)}")


def _parts(predictor: LatencyPredictor, keys: np.ndarray) -> dict[str, np.ndarray]:
    """Part of `fit`'s data -> which rows belong to it [n]; empty if the predictor does not know.

    A row that is in both parts, as averages may be, counts as training: its prediction is no test.
    """
    if not predictor.training:
        return {}
    training = np.isin(keys, predictor.training)
    held_out = np.isin(keys, predictor.held_out) & ~training
    return {"training": training, "held_out": held_out, "new": ~(training | held_out)}


def plot_predictions(measured: np.ndarray, predicted: np.ndarray, scores: dict[str, float], path: str) -> None:
    """Draw predicted against measured latency. Raises InputError if the file cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    ends = [0.95 * min(measured.min(), predicted.min()), 1.05 * max(measured.max(), predicted.max())]
    axes.plot(ends, ends, color="0.6", linewidth=1)
    axes.scatter(measured, predicted, s=8)
    axes.set(xlabel="measured latency [ms]", ylabel="predicted latency [ms]", xlim=ends, ylim=ends)
    axes.set_title(f"MAPE {scores['mape']:.2f} %, Kendall tau {scores['kendall_tau']:.3f}")
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))
