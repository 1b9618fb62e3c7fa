"""Merging expert weights with router probabilities (MoS, arXiv 2306.04845, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mos_fairseq.modules import kernels


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
    if not kernels.policy().enabled:
        return (weight[:, :, :out_size, :in_size] * probs).sum(0)
    return _MixExperts.apply(weight, probs, out_size, in_size)


def add_low_rank(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Shared weights [G, o, i], and what experts of low rank add to them: left [G, o, E*R] times right [G, E*R, i].

    One product with the weighted factors of all experts side by side: 2*o*i*E*R FLOPs, and one pass over memory. Adding
    U(g * (Dx)) to each output instead takes 2*T*(o+i)*E*R for T tokens, less where T < o*i/(o+i): 530 tokens for 3072 x
    640, 205 for 1024 x 256. Training has more in a batch, and evaluation merges once. (Beside frozen weights it is
    cheaper after all, see :meth:`~mos_fairseq.modules.LowRankExperts.is_cheaper_beside`.)
    """
    with torch.autocast(weight.device.type, enabled=False):  # it would round the shared weights before the sum
        return torch.baddbmm(weight, left, right)


def merged_again(
    merged: Tensor, sources: Sequence[Tensor], merge: Callable[[], Tensor]
) -> torch.autograd.graph.saved_tensors_hooks:
    """Context for a product with ``merged`` in which autograd does not save it, and merges again in the backward pass.

    So a training step does not hold the merged weights of all layers from the forward to the backward pass. Merging
    costs memory traffic only: far less than the products it is made for. Hooks of an outer context do not see what is
    saved inside; under autocast the merged weight's copy of lower precision is saved as ever.

    Args:
        merged: what ``merge`` gave, [G, o, i] or [G*o, i].
        sources: tensors that it is made of.
        merge: makes it of them.

    Raises:
        RuntimeError: in the backward pass, if a tensor that it needs was modified in place since.
    """
    address, numel = merged.data_ptr(), merged.numel()  # no reference to the tensor, so that it can be freed
    versions = [(tensor, tensor._version) for tensor in sources]

    def keep(saved: Tensor) -> tuple:
        if saved.data_ptr() != address or saved.numel() != numel:
            return saved, saved._version
        return None, (saved.size(), saved.stride())

    @torch.no_grad()
    def get(kept: tuple) -> Tensor:
        saved, layout = kept
        for tensor, version in versions if saved is None else [kept]:
            if tensor._version != version:  # as autograd says it where there are no hooks
                raise RuntimeError("a tensor needed for gradient computation has been modified by an inplace operation")
        if saved is not None:
            return saved
        return merge().contiguous().as_strided(*layout)  # products transpose it

    return torch.autograd.graph.saved_tensors_hooks(keep, get)
