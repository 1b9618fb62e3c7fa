#!/usr/bin/env python3
"""Is oneDNN's packed product faster here? Its time divided by MKL's, for decoding's matrices and numbers of rows.

    OMP_NUM_THREADS=1 python examples/studies/benchmarks/products.py

Multiplies x [rows, i] by as many matrices [o, i] as fit 150 MB, so that they are read from memory, both ways in turn.
Prints the median of five rounds, after two of warm-up, as a table in Markdown. ``mos_fairseq/modules/kernels.py``
has thresholds from such tables of AMD EPYCs and of an Intel Xeon.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mos_fairseq.benchmark.timing import in_turn, ratio
from mos_fairseq.latency import machine
from mos_fairseq.modules import onednn

SHAPES = ((256, 256), (1024, 256), (512, 512), (2048, 512), (8000, 256), (32000, 512))
ROWS = (1, 2, 5, 10, 30)
BYTES = 150_000_000


def products(x: Tensor, weights: list[Tensor], linear: Callable[..., Tensor], bias: Tensor) -> Callable[[], None]:
    """All products of ``x`` [rows, i] with the weights [o, i], each result dropped."""

    def run() -> None:
        for weight in weights:
            linear(x, weight, bias)

    return run


@torch.inference_mode()
def main() -> None:
    """Entry point."""
    columns = []
    for o, i in SHAPES:
        weights = [torch.randn(o, i) for _ in range(max(2, BYTES // (4 * o * i)))]
        packed, bias, column = [onednn.pack(weight) for weight in weights], torch.zeros(o), []
        for rows in ROWS:
            x = torch.randn(rows, i)
            calls = {
                "MKL": products(x, weights, F.linear, bias),
                "oneDNN": products(x, packed, onednn.multiply, bias),
            }
            seconds = in_turn(calls, 5, warmup=2)
            column.append(f"{ratio(seconds['oneDNN'], seconds['MKL'])['ratio']:.2f}")
        columns.append(column)
    print(f"{machine()['processor']}, {torch.get_num_threads()} threads")
    print(f"| rows | {' | '.join(f'{o}x{i}' for o, i in SHAPES)} |\n|{'---|' * (len(SHAPES) + 1)}")
    for rows, figures in zip(ROWS, zip(*columns, strict=True), strict=True):
        print(f"| {rows} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
