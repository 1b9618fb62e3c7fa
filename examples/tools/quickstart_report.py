#!/usr/bin/env python3
"""Print a table of the subnets that translated the quickstart's test set, with their BLEU, and plot it.

    python examples/tools/quickstart_report.py --reference test.de --plot bleu.png largest=DIR smallest=DIR …

Each DIR has the output of one run of ``fairseq-generate --results-path DIR``; a subnet may also be a YAML file, which
the table shows by its name. With ``--checkpoint``, the table also has each subnet's parameters; with ``--latencies``, a
file of ``mos-latency measure``, its measured latency; with ``--predictor``, its predicted latency. With ``--budget``,
the plot has a line at that number of milliseconds; with ``--search``, it also shows the search's front.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sacrebleu

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ReportError(ValueError):
    """Translations that cannot be scored, reported in one line."""


@dataclass(frozen=True)
class Known:
    """Facts about a subnet before it translates."""

    parameters: int | None = None
    predicted_ms: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class Result:
    """One subnet's row."""

    subnet: str
    bleu: float
    known: Known


def read_hypotheses(file: Path) -> list[str]:
    """The detokenised best hypotheses of a fairseq-generate output, in the order of the test set.

    fairseq writes sentences in the order in which they were batched; the line 'D-7' holds sentence 7's score
    and text.
    """
    hypotheses: dict[int, str] = {}
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if not re.match(r"D-\d+\t", line):
                continue
            label, _, text = line.rstrip("\n").split("\t", 2)
            hypotheses.setdefault(int(label[2:]), text)  # with --nbest, the first is the best
    if not hypotheses:
        raise ReportError(f"{file}: holds no translations")
    if sorted(hypotheses) != list(range(len(hypotheses))):
        raise ReportError(
            f"{file}: only {len(hypotheses)} translations, and some in between are missing; "
            "fairseq-generate leaves sentences out without --required-batch-size-multiple 1"
        )
    return [hypotheses[index] for index in range(len(hypotheses))]


def look_up(
    checkpoint: Path, subnets: list[str], latencies: Path | None, predictor: Path | None
) -> tuple[dict[str, Known], str | None]:
    """Return the parameters of each subnet's static twin (a user of the subnet stores these, embeddings included), its
    predicted and measured latency, and any sign that the machine was busy during the measurement."""
    logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported
    from fairseq import checkpoint_utils

    from mos_fairseq.latency import LatencyPredictor, read_latencies
    from mos_fairseq.search_space import resolve_subnet

    models, _, _ = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)])
    times, busy = {}, None
    predict, speed = lambda subnets: [None], {}
    if predictor is not None:
        fitted = LatencyPredictor.load(predictor)
        predict, speed = fitted.predict, fitted.measured
    if latencies is not None:
        measured = read_latencies(latencies).at_speed_of(speed)
        busy = measured.busy()
        times = {subnet.key: ms for subnet, ms in zip(measured.subnets, measured.latency_ms, strict=True)}
    known = {}
    for name in subnets:
        subnet = resolve_subnet(name, models[0].search_space)
        models[0].set_active_subnet(subnet)
        twin = models[0].get_active_subnet()
        parameters = sum(parameter.numel() for parameter in twin.parameters())
        known[name] = Known(parameters, predict([subnet])[0], times.get(subnet.key))
    return known, busy


def score(subnet: str, folder: Path, references: list[str], known: Known) -> Result:
    """sacreBLEU of one subnet's translations against the raw references."""
    file = folder / "generate-test.txt"
    if not file.is_file():
        raise ReportError(f"{subnet}: {file} is missing: did fairseq-generate finish?")
    hypotheses = read_hypotheses(file)
    if len(hypotheses) != len(references):
        raise ReportError(f"{subnet}: {len(hypotheses)} translations in {file} for {len(references)} references")
    bleu = sacrebleu.corpus_bleu(hypotheses, [references])
    name = Path(subnet).stem if subnet.endswith((".yaml", ".yml")) else subnet
    return Result(name, bleu.score, known)


def table(results: list[Result]) -> str:
    """The results as aligned text."""
    rows = [("subnet", "parameters", "predicted", "measured", "BLEU")]
    for result in results:
        known = result.known
        parameters = f"{known.parameters:,}" if known.parameters else "-"
        times = [f"{ms:.1f} ms" if ms else "-" for ms in (known.predicted_ms, known.latency_ms)]
        rows.append((result.subnet, parameters, *times, f"{result.bleu:.1f}"))
    columns = list(zip(*rows, strict=True))
    kept = [index for index, (_, *cells) in enumerate(columns) if index not in (2, 3) or set(cells) != {"-"}]
    rows = [tuple(row[index] for index in kept) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return "\n".join(lines)


def plot(
    results: list[Result], file: Path, budget_ms: float | None = None, search: dict[str, Any] | None = None
) -> None:
    """BLEU against latency, with the budget as a line, or else parameters, or one bar per subnet where neither is known
    of all. Beside it the front of ``search``, the content of its search.json."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 if search is None else 11, 4), layout="constrained")
    axes = figure.add_subplot(1, 1 if search is None else 2, 1)
    if search is not None:
        plot_front(figure.add_subplot(1, 2, 2), search, budget_ms)
    if all(result.known.latency_ms for result in results):
        label, values = "measured latency [ms]", [result.known.latency_ms for result in results]
    else:
        label, values = "parameters (millions)", [(result.known.parameters or 0) / 1e6 for result in results]
    if all(values):
        for value, result in zip(values, results, strict=True):
            axes.scatter(value, result.bleu, label=result.subnet, color=COLOURS.get(result.subnet))
        axes.legend()
        if budget_ms is not None and label.endswith("[ms]"):
            draw_budget(axes, budget_ms, 0.02)  # low: what takes long is good
        axes.set_xlabel(label)
        axes.margins(0.2)
    else:
        bars = axes.bar([result.subnet for result in results], [result.bleu for result in results])
        axes.bar_label(bars, fmt="%.1f")
    axes.set_ylabel("test BLEU")
    axes.set_title("Translating with subnets of one supernet")
    figure.savefig(file, dpi=150)


def read_search(file: Path) -> dict[str, Any]:
    """Return the content of a search.json. Raises ReportError if it is another file, or of another search."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        for row in (found["best"], *found["front"], *found["compared"].values()):
            if not {"loss", "latency_ms"} <= row.keys():
                raise ReportError(f"--search {file}: it is of a search with other figures than loss and latency_ms")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(f"--search {file}: no search.json of mos-search ({type(error).__name__}: {error})") from None
    return found


COLOURS = {"smallest": "C1", "uniform": "C3", "best": "C0", "finetuned": "C4", "largest": "C2"}


def plot_front(axes: Axes, search: dict[str, Any], budget_ms: float | None) -> None:
    """The subnets that no other of the search beats in both loss and predicted latency, and those that it is compared
    with."""
    points = [(row["latency_ms"], row["loss"]) for row in search["front"]]
    axes.plot(*zip(*points, strict=True), marker=".", linewidth=1, color="0.6", label="front of the search")
    for name, row in {"best": search["best"], **search["compared"]}.items():
        if name != "beyond":
            axes.scatter(row["latency_ms"], row["loss"], label=name, color=COLOURS.get(name), zorder=3)
    if budget_ms is not None:
        draw_budget(axes, budget_ms, 0.8)
    axes.set(xlabel="predicted latency [ms]", ylabel="validation loss", title="What the search found")
    axes.legend()


def draw_budget(axes: Axes, budget_ms: float, height: float) -> None:
    """A line at that latency, with a label at that part of its height."""
    axes.axvline(budget_ms, color="0.4", linestyle="--", linewidth=1)
    axes.annotate("budget", (budget_ms, height), xycoords=("data", "axes fraction"), rotation=90, ha="right")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Score and plot the quickstart's subnets.")
    parser.add_argument("--reference", type=Path, required=True, help="raw target side of the test set")
    parser.add_argument("--plot", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--checkpoint", type=Path, help="the supernet, to count parameters")
    parser.add_argument("--latencies", type=Path, help="measured latencies, with --checkpoint")
    parser.add_argument("--predictor", type=Path, help="of mos-latency fit, with --checkpoint")
    parser.add_argument("--budget", type=float, metavar="MS", help="of the search, for the plot")
    parser.add_argument("--search", type=Path, metavar="JSON", help="search.json of the search, for the plot")
    parser.add_argument("runs", nargs="+", metavar="SUBNET=DIR", help="a subnet and its --results-path")
    options = parser.parse_args(arguments)
    try:
        if not options.reference.is_file():
            raise ReportError(f"--reference {options.reference}: no such file")
        # str.splitlines would also split a sentence at characters such as U+2028
        references = options.reference.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        folders = {}
        for run in options.runs:
            subnet, equals, folder = run.rpartition("=")
            if not equals:
                raise ReportError(f"{run}: expected SUBNET=DIR")
            folders[subnet] = Path(folder)
        known, busy = {}, None
        if options.checkpoint:
            known, busy = look_up(options.checkpoint, list(folders), options.latencies, options.predictor)
        search = read_search(options.search) if options.search else None
        results = [score(name, folder, references, known.get(name, Known())) for name, folder in folders.items()]
    except ValueError as error:  # ReportError, or mos_fairseq's error about a file
        sys.exit(f"quickstart_report.py: {error}")
    print(table(results))
    if busy is not None:
        print(f"warning: {busy}")
    plot(results, options.plot, options.budget, search)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
