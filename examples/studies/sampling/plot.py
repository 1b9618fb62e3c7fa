#!/usr/bin/env python3
"""Plot the recipes' BLEU over the subnets' FLOPs, with standard deviations over seeds.

    python examples/studies/sampling/plot.py ROWS.json SPACE OUTPUT.png

ROWS.json is of scores.py. Other subnets than those of SPACE's names (largest, random:3 …) are files of
examples/recipes/libreoffice_help/subnets.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from pathlib import Path

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

from mos_fairseq.cost import subnet_cost  # noqa: E402
from mos_fairseq.errors import InputError  # noqa: E402
from mos_fairseq.figures import new_figure, save_figure  # noqa: E402
from mos_fairseq.search_space import SearchSpace  # noqa: E402
from mos_fairseq.search_space.specs import resolve_subnet  # noqa: E402

SUBNETS = Path(__file__).resolve().parents[2] / "recipes" / "libreoffice_help" / "subnets"

Curve = list[tuple[float, float, float]]
"""MFLOPs, mean and standard deviation of BLEU, by rising FLOPs."""


def mflops(name: str, space: SearchSpace) -> float:
    """Of a subnet by its name in the rows, without the output projection."""
    file = SUBNETS / f"{name}.yaml"
    subnet = resolve_subnet(str(file) if file.exists() else name, space)
    return subnet_cost(subnet).flops_without_output_projection / 1e6


def curves(rows: list[dict], space: SearchSpace) -> dict[str, Curve]:
    """By recipe and number of seeds, of recipes that have all subnets."""
    sizes = {name: mflops(name, space) for name in {row["subnet"] for row in rows}}
    found = {}
    for recipe in sorted({row["recipe"] for row in rows}):
        scores = {n: [row["bleu"] for row in rows if (row["recipe"], row["subnet"]) == (recipe, n)] for n in sizes}
        if all(scores.values()):
            seeds = len(next(iter(scores.values())))
            found[f"{recipe} ({seeds} seed{'s' if seeds > 1 else ''})"] = [
                (sizes[n], statistics.fmean(scores[n]), statistics.stdev(scores[n]) if len(scores[n]) > 1 else 0.0)
                for n in sorted(sizes, key=sizes.__getitem__)
            ]
    return found


def main(argv: list[str]) -> None:
    """Command line."""
    if len(argv) != 3:
        sys.exit(__doc__)
    rows = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot(xlabel="MFLOPs a sentence, without the output projection", ylabel="test BLEU, inherited")
    try:
        found = curves(rows, SearchSpace.from_spec(argv[1]))
    except InputError as error:  # rows of another space
        sys.exit(f"error: {error}")
    for label, curve in found.items():
        sizes, means, deviations = zip(*curve, strict=True)
        axes.errorbar(sizes, means, yerr=deviations, marker="o", markersize=4, capsize=3, linewidth=1, label=label)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    save_figure(figure, argv[2])
    print(f"plot: {argv[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
