"""Divergences of a student's distribution from a teacher's: Kullback-Leibler and alpha-divergences (AlphaNet, arXiv
2102.07954), and the student's loss, which combines them with the labels' cross entropy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mos_fairseq.modules import kernels

# exp() of a larger number would overflow in fp32; such weights are clipped anyway unless the clip is infinite
_LARGEST_EXPONENT = 80.0


def alpha_divergence(student: Tensor, teacher: Tensor, alpha: float, clip: float) -> tuple[Tensor, Tensor]:
    """Return D(p||q) = sum_v q_v (w_v - 1) / (alpha (alpha - 1)), importance weights w_v = (p_v / q_v)^alpha.

    The limits are KL(p||q) at alpha = 1 and KL(q||p) at 0. The weights are clipped at ``clip``, except for alpha in
    [0, 1], where q_v w_v never exceeds 1.

    Args:
        student, teacher: log q and log p, [N, V].

    Returns:
        D [N], and the coefficients c [N, V] of its gradient -sum_v c_v grad log q_v. As in AlphaNet, c = q w / alpha
        with the clipped weights. (The value D with clipped weights would fall where p is far above q.)
    """
    if alpha == 1:
        c = teacher.exp()
        return (c * (teacher - student)).sum(-1), c
    log_ratio = teacher - student
    if alpha == 0:
        c = log_ratio.mul_(student.exp())
        return -c.sum(-1), c
    limit = _LARGEST_EXPONENT if 0 < alpha < 1 else min(math.log(clip), _LARGEST_EXPONENT)
    exponent = (alpha * log_ratio).clamp_(max=limit)
    # the sum of q (w - 1) or of q w - p, in a form that does not cancel for alpha close to 0 or 1
    if alpha < 0.5:
        terms = exponent.expm1().mul_(student.exp())
    else:
        rest = torch.minimum((alpha - 1) * log_ratio, limit - log_ratio)  # exponent - log_ratio
        terms = rest.clamp_(max=_LARGEST_EXPONENT).expm1_().mul_(teacher.exp())
    return terms.sum(-1) / (alpha * (alpha - 1)), exponent.add_(student).exp_().div_(alpha)


def largest_divergence(
    student: Tensor, teacher: Tensor, alphas: tuple[float, ...], clip: float
) -> tuple[Tensor, Tensor]:
    """Return the largest alpha-divergence over ``alphas``, token by token (AlphaNet's adaptive one: alpha-, alpha+).

    Args:
        student, teacher: log-probabilities, [N, V].

    Returns:
        divergences [N], and their gradients [N, V] with respect to the logits of ``student``.
    """
    value, c = alpha_divergence(student, teacher, alphas[0], clip)
    for alpha in alphas[1:]:
        other, other_c = alpha_divergence(student, teacher, alpha, clip)
        c = torch.where((other > value).unsqueeze(-1), other_c, c)
        value = torch.maximum(value, other)
    return value, (student.exp() * c.sum(-1, keepdim=True)).sub_(c)


@dataclass(frozen=True)
class DistillationOptions:
    """``alphas`` and ``clip`` are as above ((1,) is KL(p||q)). The divergence of the distributions at ``temperature``
    has the weight ``weight`` x temperature^2, the label-smoothed cross entropy 1 - ``weight``."""

    alphas: tuple[float, ...] = (1.0,)
    clip: float = 5.0
    temperature: float = 1.0
    weight: float = 1.0
    label_smoothing: float = 0.0


class DistillationLoss(torch.autograd.Function):
    """A student's loss, summed over tokens; computed in fp32 (in float64 for float64).

    Value and gradient are computed together, a block of rows at a time. One [N, V] tensor, the gradient, is kept.
    """

    @staticmethod
    def forward(
        ctx, logits: Tensor, teacher: Tensor, target: Tensor, ignore_index: int, options: DistillationOptions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args:
            logits, teacher: logits of the student and the teacher, [N, V].
            target: [N]; tokens equal to ``ignore_index`` do not count.

        Returns:
            loss, negative log-likelihood of the labels, and divergence; only the loss has a gradient.
        """
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        keep = target.ne(ignore_index).to(dtype)
        sums = [logits.new_zeros((), dtype=dtype) for _ in range(3)]
        grad = torch.empty_like(logits, dtype=dtype) if ctx.needs_input_grad[0] else None
        for rows in _chunks(logits):
            parts = _student_loss(logits[rows].to(dtype), teacher[rows].to(dtype), target[rows], options)
            for i, values in enumerate(parts[:3]):
                sums[i] += values @ keep[rows]
            if grad is not None:
                torch.mul(parts[3], keep[rows].unsqueeze(-1), out=grad[rows])
        ctx.gradient, ctx.dtype = grad, logits.dtype
        ctx.mark_non_differentiable(*sums[1:])
        return tuple(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor, *_):
        if ctx.gradient is None:
            raise RuntimeError("the distillation loss supports one backward pass; compute the loss again")
        grad, ctx.gradient = ctx.gradient, None
        return grad.mul_(grad_loss).to(ctx.dtype), None, None, None, None


def _chunks(logits: Tensor) -> Iterator[slice]:
    policy = kernels.policy()
    rows = max(1, (policy.cpu_chunk if logits.device.type == "cpu" else policy.gpu_chunk) // logits.size(-1))
    return (slice(start, start + rows) for start in range(0, len(logits), rows))


def _student_loss(
    logits: Tensor, teacher: Tensor, target: Tensor, options: DistillationOptions
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return loss, nll and divergence of each token [n], and the loss' gradient in ``logits`` [n, V]."""
    t, weight = options.temperature, options.weight
    log_probs = logits.log_softmax(-1)
    nll = -log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    student = log_probs if t == 1 else (logits / t).log_softmax(-1)
    divergence, grad = largest_divergence(student, (teacher / t).log_softmax(-1), options.alphas, options.clip)
    loss = weight * t**2 * divergence
    grad.mul_(weight * t)  # t^2 as in the loss, times 1 / t from the chain rule
    if weight < 1:
        eps_i = options.label_smoothing / (logits.size(-1) - 1)
        hot = 1 - options.label_smoothing - eps_i
        loss = loss + (1 - weight) * (hot * nll - eps_i * log_probs.sum(-1))
        grad.add_(log_probs.exp(), alpha=1 - weight).sub_((1 - weight) * eps_i)
        grad.scatter_add_(-1, target.unsqueeze(-1), grad.new_full((len(grad), 1), -(1 - weight) * hot))
    return loss, nll, divergence, grad
