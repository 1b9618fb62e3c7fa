"""The command line of ``mos-latency``."""

from __future__ import annotations

import argparse

from mos_fairseq.cli import add_options, command_parser, example_of
from mos_fairseq.latency import DTYPES, REPEATS, LatencyOptions
from mos_fairseq.search_space import FAMILIES

_HELP = {
    "vocab_size": "size of the dictionary",
    "batch_size": "sentences translated at once",
    "src_len": "source tokens of a sentence, its end included",
    "tgt_len": "target tokens of a sentence, its end included",
    "beam": "beam width; 1 is greedy search",
    "device": "torch's name of the device, as in cuda:0",
    "threads": "torch's threads on a CPU (default: torch's own choice)",
    "dtype": " or ".join(DTYPES),
    "warmup": "number of runs per visit that do not count",
    "iterations": "number of runs per visit that count, in turn with the reference subnet; their trimmed mean is taken",
    "workload": "the timed work: "
    + "; ".join(f"{' or '.join(family.workloads)} ({name})" for name, family in FAMILIES.items())
    + " (default: the first of the space's family)",
}


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mos-latency``."""
    parser = command_parser(
        "mos-latency",
        "Measure and predict the latency of subnets.",
        "mos-latency measure --search-space tiny --vocab-size 2000 --num-subnets 200 --output latency.jsonl\n"
        "mos-latency fit latency.jsonl --output predictor.json\n"
        "mos-latency predict predictor.json --subnet largest,smallest,random:7\n"
        "mos-latency measure --search-space bert_tiny --vocab-size 1504 --num-subnets 200 --src-len 96 --output "
        "bert.jsonl    # masked language models",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_measure(commands)
    fit = commands.add_parser(
        "fit",
        help="fit a predictor to measured latencies",
        allow_abbrev=False,
        **example_of("mos-latency fit latency.jsonl --output predictor.json --plot held-out.png"),
    )
    fit.add_argument("data", help="file of `measure`, or a CSV file in HAT's published format")
    fit.add_argument("--output", required=True, metavar="FILE", help="file of the predictor, JSON")
    fit.add_argument(
        "--target",
        choices=("latency_ms", "split"),
        default="latency_ms",
        help="split: besides latency_ms, also encoder_ms and decoder_ms, for mos-search --split (default: %(default)s)",
    )
    fit.add_argument("--folds", type=int, default=10, metavar="N", help="folds of the cross-validation (default: 10)")
    fit.add_argument(
        "--held-out", type=float, default=0.2, metavar="P", help="share that only judges the result (default: 0.2)"
    )
    fit.add_argument("--seed", type=int, default=1, metavar="N", help="seed of folds and held-out set (default: 1)")
    fit.add_argument("--plot", metavar="PNG", help="plot predicted against measured latency of the held-out set")
    fit.add_argument("--json", action="store_true", help="print the scores as JSON")
    predict = commands.add_parser(
        "predict",
        help="predict the latency of subnets",
        allow_abbrev=False,
        **example_of("mos-latency predict predictor.json --subnet largest,smallest,search/best.yaml"),
    )
    predict.add_argument("predictor", help="file of `fit`")
    predict.add_argument("--subnet", required=True, metavar="S", help="subnets, separated by commas")
    predict.add_argument("--json", action="store_true", help="one JSON object per subnet and line")
    report = commands.add_parser(
        "report",
        help="compare a predictor with measured latencies",
        description="Compare a predictor with measured latencies: with all of the file, and separately with the rows "
        "that the predictor was fitted to, that `fit` held out, and that are new.",
        allow_abbrev=False,
        **example_of("mos-latency report predictor.json latency.jsonl"),
    )
    report.add_argument("predictor", help="file of `fit`")
    report.add_argument("data", help="file of `measure`, which may be the one fitted to, or HAT's CSV")
    report.add_argument("--plot", metavar="PNG", help="plot predicted against measured latency")
    report.add_argument("--json", action="store_true", help="print the scores as JSON")
    return parser


def _add_measure(commands) -> None:
    measure = commands.add_parser(
        "measure",
        help="time subnets on this machine",
        description="Time subnets on this machine, in turn with a reference subnet, whose drift is divided out. "
        "On a CPU with glibc, set GLIBC_TUNABLES as examples/tools/cpu_env.sh does (memory kept, in huge pages). The "
        "file's first line records the setting, and a run can only continue a file with the same one.",
        allow_abbrev=False,
        **example_of(
            "mos-latency measure --search-space tiny --vocab-size 2000 --num-subnets 200 --output latency.jsonl"
        ),
    )
    measure.add_argument("--search-space", required=True, metavar="X", help="preset or YAML file")
    measure.add_argument("--output", required=True, metavar="JSONL", help="results; an existing file is continued")
    which = measure.add_mutually_exclusive_group(required=True)
    which.add_argument("--num-subnets", type=int, metavar="N", help="measure N subnets: largest, smallest, random ones")
    which.add_argument("--subnet", metavar="S", help="measure these subnets, separated by commas")
    measure.add_argument(
        "--repeats",
        type=int,
        default=REPEATS,
        metavar="N",
        help="visit every subnet N times, each time in another order of the whole list, and take the mean of its "
        "visits; many short visits are more precise than few long ones (default: %(default)s)",
    )
    measure.add_argument("--seed", type=int, metavar="N", help="seed of the random subnets (default: 1)")
    add_options(measure, LatencyOptions, _HELP)
