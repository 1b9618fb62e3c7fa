#!/usr/bin/env python3
"""Is attention with dropout faster by this package's products? Its time divided by torch's own.

    OMP_NUM_THREADS=1 python examples/studies/benchmarks/attention.py

Forward and backward of self-attention without its projections, in training, with padding, both ways in turn. Prints the
ratio of each shape with its 95 % interval over 15 rounds, after two of warm-up, as a table in Markdown.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mos_fairseq.benchmark.timing import in_turn, ratio
from mos_fairseq.latency import machine
from mos_fairseq.modules import MultiheadAttention, kernels

SHAPES = ((32, 12, 96, 32), (32, 4, 96, 32), (100, 8, 30, 64), (30, 4, 32, 32))  # sentences, heads, positions, width
ROUNDS = 15


def updates(policy: kernels.KernelPolicy, heads: int, x: Tensor, mask: Tensor) -> Callable[[], None]:
    """Forward and backward under a policy; ``x`` [B, T, 3q] holds queries, keys and values."""
    attention = MultiheadAttention({"qkv_proj": nn.Identity()}, nn.Identity(), heads, dropout=0.1).train()

    def run() -> None:
        with kernels.using(policy):
            attention(x, mask=mask)[0].sum().backward()
        x.grad = None

    return run


def main() -> None:
    """Entry point."""
    torch.manual_seed(1)
    ours = kernels.policy()
    print(f"{machine()['processor']}, {torch.get_num_threads()} threads, kernels {ours.name}")
    print("| sentences, heads, positions, width | fp32 | bf16 |\n|---|---|---|")
    for batch, heads, positions, width in SHAPES:
        lengths = torch.randint(positions // 2, positions + 1, (batch, 1, 1, 1))
        mask = torch.arange(positions) < lengths
        cells = []
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(batch, positions, 3 * heads * width, dtype=dtype, requires_grad=True)
            calls = {name: updates(p, heads, x, mask) for name, p in (("ours", ours), ("torch", kernels.TORCH))}
            seconds = in_turn(calls, ROUNDS, warmup=2)
            found = ratio(seconds["ours"], seconds["torch"])
            low, high = found["interval"]
            cells.append(f"{found['ratio']:.2f} ({low:.2f} to {high:.2f})")
        print(f"| {batch}, {heads}, {positions}, {width} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
