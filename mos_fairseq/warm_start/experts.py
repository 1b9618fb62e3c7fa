"""How the experts of a supernet that starts from a dense model begin to differ."""

from __future__ import annotations

import torch

from mos_fairseq.models import Supernet


def part_experts(model: Supernet, noise: float, generator: torch.Generator) -> None:
    """Add noise to experts that cancels in the largest subnet, which is active: of draws n_e with ``noise`` times the
    standard deviation of the matrix, expert e gets n_e - sum_k p_k n_k, where p are the mixing weights in force.

    Experts of low rank get none: they add zero at first, in every subnet, and differ by their factors."""
    for stack in model.stacks() if noise else ():
        for layer in stack.layers:
            for name, probs in layer.mixing_probs().items():
                linear = layer.get_submodule(name)
                if linear.low_rank is not None:
                    continue
                weight = linear.weight
                draws = torch.randn(weight.shape, generator=generator) * (noise * weight[0].std())
                shares = probs.view(-1, 1, 1, 1) if probs.dim() == 1 else probs.unsqueeze(-1)
                weight.add_(draws - (shares * draws).sum(0))
