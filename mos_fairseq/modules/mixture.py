"""Merging expert weights with router probabilities (MoS, arXiv 2306.04845, equations of DESIGN section 2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _MixExperts(torch.autograd.Function):
    """W = sum_e p_e * W_e on the active slice, without keeping a scaled copy of each expert for the backward pass.

    Plain autograd would save E products, and build the gradient of the stacked parameter by padding and adding E
    times; here the gradient is written straight into the active slice of one zero-filled tensor.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, probs: Tensor, out_size: int, in_size: int) -> Tensor:
        active = weight[:, :, :out_size, :in_size]
        if len(active) == 2:  # in one pass over memory, which is what mixing costs
            merged = torch.lerp(active[0], active[1], probs[1])
        else:
            merged = active[0] * probs[0]
            for expert, prob in zip(active[1:], probs[1:], strict=True):
                merged.addcmul_(expert, prob)
        ctx.save_for_backward(weight, probs)
        ctx.sizes = (out_size, in_size)
        return merged

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        weight, probs = ctx.saved_tensors
        out_size, in_size = ctx.sizes
        grad_weight = grad_probs = None
        if ctx.needs_input_grad[0]:
            whole = out_size == weight.size(2) and in_size == weight.size(3)
            grad_weight = torch.empty_like(weight) if whole else torch.zeros_like(weight)
            for e, prob in enumerate(probs):
                torch.mul(grad, prob, out=grad_weight[e, :, :out_size, :in_size])
        if ctx.needs_input_grad[1]:
            active = weight[:, :, :out_size, :in_size]
            per_row = torch.stack([(grad * expert).sum(-1, keepdim=True) for expert in active])  # [E, G, o, 1]
            grad_probs = per_row.sum_to_size(probs.shape)
        return grad_weight, grad_probs, None, None


def mix_experts(weight: Tensor, probs: Tensor, out_size: int, in_size: int) -> Tensor:
    """Merge stacked experts into the weights of one subnet.

    Args:
        weight: stacked experts [E, G, O, I]: experts, groups of output rows (3 for a fused query-key-value
            projection, 1 otherwise), output rows, input columns.
        probs: mixing weights, [E] (layer-wise) or [E, G, o] (neuron-wise), summing to 1 over E (two
            experts are interpolated by the second's alone).
        out_size: active rows o <= O of each group.
        in_size: active columns i <= I.

    Returns:
        the merged weight [G, o, i]; ``W[g, r, c] = sum_e probs[e, g, r] * weight[e, g, r, c]``.
    """
    probs = probs.to(weight.dtype)
    probs = probs.view(-1, 1, 1, 1) if probs.dim() == 1 else probs.unsqueeze(-1)
    return _MixExperts.apply(weight, probs, out_size, in_size)


def merged_again(merged: Tensor, merge: Callable[[], Tensor]) -> torch.autograd.graph.saved_tensors_hooks:
    """Context in which autograd, instead of ``merged``, keeps how to make it.

    So a training step holds the merged weights of one layer at a time, not of all of them from the forward to the
    backward pass. Merging costs memory traffic only: far less than the products it is made for.

    Args:
        merged: a merged weight.
        merge: gives it again, with gradients where these are enabled.
    """
    address, numel = merged.data_ptr(), merged.numel()  # and not the tensor, which shall be free to go

    def keep(saved: Tensor) -> Tensor | tuple:
        if saved.data_ptr() != address or saved.numel() != numel:
            return saved
        return saved.size(), saved.stride()

    def get(kept: Tensor | tuple) -> Tensor:
        return kept if isinstance(kept, Tensor) else merge().as_strided(*kept)  # products keep it transposed

    return torch.autograd.graph.saved_tensors_hooks(keep, get)
