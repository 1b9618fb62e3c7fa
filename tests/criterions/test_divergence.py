"""Divergences against direct float64 computations, their limits, their gradients, clipping; the loss made of them."""

import math

import pytest
import torch

from mos_fairseq.criterions.divergence import (
    DistillationLoss,
    DistillationOptions,
    alpha_divergence,
    largest_divergence,
)
from tests.seeds import moved

TOKENS, WORDS, PAD = 9, 13, 1
INF = math.inf


def logits(seed: int, spread: float = 1.5, dtype=torch.float64) -> torch.Tensor:
    return spread * torch.randn(TOKENS, WORDS, generator=torch.Generator().manual_seed(moved(seed)), dtype=dtype)


def pair(spread: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of student and teacher."""
    return logits(1, spread).log_softmax(-1), logits(2, spread).log_softmax(-1)


def direct(student: torch.Tensor, teacher: torch.Tensor, alpha: float, clip: float = INF) -> list[float]:
    """AlphaNet's definition, number by number."""
    result = []
    for log_q, log_p in zip(student.tolist(), teacher.tolist(), strict=True):
        total = 0.0
        for lq, lp in zip(log_q, log_p, strict=True):
            weight = min(math.exp(alpha * (lp - lq)), clip)
            total += math.exp(lq) * (weight - 1)
        result.append(total / (alpha * (alpha - 1)))
    return result


def kl(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first.exp() * (first - second)).sum(-1)


class Largest(torch.autograd.Function):
    """The value and gradient given by the function under test, for gradcheck."""

    @staticmethod
    def forward(ctx, z, teacher, alphas, clip):
        value, grad = largest_divergence(z.log_softmax(-1), teacher, alphas, clip)
        ctx.save_for_backward(grad)
        return value

    @staticmethod
    def backward(ctx, grad_value):
        return grad_value.unsqueeze(-1) * ctx.saved_tensors[0], None, None, None


@pytest.mark.parametrize("alpha", [-3.0, -1.0, -0.2, 0.3, 0.5, 0.7, 1.4, 2.0, 4.0])
def test_value_equals_the_definition(alpha):
    student, teacher = pair()
    value, _ = alpha_divergence(student, teacher, alpha, INF)
    assert value.tolist() == pytest.approx(direct(student, teacher, alpha), rel=1e-10)
    assert (value > 0).all()
    in_fp32, _ = alpha_divergence(student.float(), teacher.float(), alpha, INF)
    assert in_fp32.tolist() == pytest.approx(value.tolist(), rel=1e-4)


def test_limits_are_the_two_kullback_leibler_divergences():
    student, teacher = pair()
    for end, expected in ((0.0, kl(student, teacher)), (1.0, kl(teacher, student))):
        torch.testing.assert_close(alpha_divergence(student, teacher, end, 5.0)[0], expected)
        for step, tolerance in ((1e-3, 1e-2), (1e-7, 1e-6)):
            for alpha in (end - step, end + step):
                value = alpha_divergence(student, teacher, alpha, INF)[0]
                torch.testing.assert_close(value, expected, rtol=tolerance, atol=0)
                gradients = [largest_divergence(student, teacher, (a,), INF)[1] for a in (alpha, end)]
                torch.testing.assert_close(*gradients, rtol=0, atol=tolerance)
                # in fp32, where the plain definition has only rounding errors
                value = alpha_divergence(student.float(), teacher.float(), alpha, INF)[0]
                torch.testing.assert_close(value.double(), expected, rtol=tolerance + 1e-5, atol=0)


@pytest.mark.parametrize("alphas", [(1.0,), (0.0,), (-1.0,), (0.4,), (2.5,), (-1.0, 1.0), (-0.5, 2.0)])
def test_gradient(alphas):
    student = logits(1).requires_grad_()
    assert torch.autograd.gradcheck(Largest.apply, (student, pair()[1], alphas, INF))


def test_the_larger_one_of_each_token():
    student, teacher = pair(spread=0.8)
    low, high = (largest_divergence(student, teacher, (alpha,), 5.0) for alpha in (-1.0, 1.0))
    value, grad = largest_divergence(student, teacher, (-1.0, 1.0), 5.0)
    first = low[0] > high[0]
    assert first.any() and not first.all()
    assert torch.equal(value, torch.where(first, low[0], high[0]))
    torch.testing.assert_close(grad, torch.where(first.unsqueeze(-1), low[1], high[1]))


@pytest.mark.parametrize("alpha", [-1.0, 2.0])
def test_importance_weights_are_clipped(alpha):
    student, teacher = pair(spread=3.0)
    weights = ((teacher - student) * alpha).exp()
    assert (weights > 5).any()
    value, grad = largest_divergence(student, teacher, (alpha,), 5.0)
    assert value.tolist() == pytest.approx(direct(student, teacher, alpha, 5.0), rel=1e-9)
    # -sum_v q_v w_v / alpha grad log q_v, where grad log q_v in the logits is e_v - q
    q, expected = student.exp(), torch.zeros_like(student)
    for v in range(WORDS):
        coefficient = q[:, v] * weights[:, v].clamp(max=5) / alpha
        expected -= coefficient.unsqueeze(-1) * (torch.eye(WORDS, dtype=q.dtype)[v] - q)
    torch.testing.assert_close(grad, expected)
    unclipped = largest_divergence(student, teacher, (alpha,), INF)
    assert (unclipped[0] > value).any() and (unclipped[1].abs().amax() > 2 * grad.abs().amax())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_bounded_weights_are_not_clipped(alpha):
    student, teacher = pair(spread=3.0)
    for clipped, whole in zip(*(largest_divergence(student, teacher, (alpha,), c) for c in (1.0, INF)), strict=True):
        assert torch.equal(clipped, whole)


@pytest.mark.parametrize("alphas", [(1.0,), (0.0,), (-1.0, 1.0), (-2.0, 3.0), (0.6,)])
@pytest.mark.parametrize("clip", [5.0, INF])
def test_stays_finite_for_distributions_far_apart(alphas, clip):
    far = torch.zeros(2, 4)
    far[0, 0], far[1, 1] = 1000.0, -1000.0
    for teacher in (far.flip(1), -far, torch.zeros(2, 4)):
        value, grad = largest_divergence(far.log_softmax(-1), teacher.log_softmax(-1), alphas, clip)
        assert value.isfinite().all() and grad.isfinite().all()


# --- the loss of a student ---

TARGET = torch.tensor([3, 0, PAD, 12, 5, PAD, 2, 7, 4])


def composed(z, teacher, options) -> torch.Tensor:
    """The same loss by torch's operations and autograd, unclipped."""
    t, weight, eps = options.temperature, options.weight, options.label_smoothing
    log_q, log_p = (z / t).log_softmax(-1), (teacher / t).log_softmax(-1)
    values = []
    for alpha in options.alphas:
        if alpha in (0.0, 1.0):
            values.append(kl(log_p, log_q) if alpha else kl(log_q, log_p))
        else:
            values.append((log_q.exp() * ((log_p - log_q) * alpha).exp()).sum(-1).sub(1) / (alpha * (alpha - 1)))
    divergences = torch.stack(values).amax(0)
    smooth = torch.full_like(z, eps / (WORDS - 1)).scatter(-1, TARGET.unsqueeze(-1), 1 - eps)
    labels = -(smooth * z.log_softmax(-1)).sum(-1)
    return (weight * t**2 * divergences + (1 - weight) * labels)[TARGET.ne(PAD)].sum()


@pytest.mark.parametrize("chunk", [1, 4 * WORDS, 1 << 18])
@pytest.mark.parametrize(
    "options",
    [
        DistillationOptions(label_smoothing=0.1),
        DistillationOptions(weight=0.3, label_smoothing=0.1),
        DistillationOptions(weight=0.0, label_smoothing=0.1),
        DistillationOptions(temperature=2.5, weight=0.6, label_smoothing=0.2),
        DistillationOptions(alphas=(-1.0, 1.0), clip=INF, temperature=0.7, weight=0.5),
    ],
)
def test_loss_of_a_student(use_kernels, options, chunk):
    use_kernels(cpu_chunk=chunk)
    z, teacher = logits(1).requires_grad_(), logits(2)
    loss, nll, distance = DistillationLoss.apply(z, teacher, TARGET, PAD, options)
    expected = composed(z, teacher, options)
    (expected_grad,) = torch.autograd.grad(0.7 * expected, z)
    (grad,) = torch.autograd.grad(0.7 * loss, z)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(grad, expected_grad)
    assert not grad[TARGET.eq(PAD)].any() and grad[TARGET.ne(PAD)].all()
    keep = TARGET.ne(PAD)
    assert nll.item() == pytest.approx(-logits(1).log_softmax(-1)[keep, TARGET[keep]].sum().item())
    alone = DistillationOptions(options.alphas, options.clip, options.temperature)
    assert distance.item() == pytest.approx(composed(z, teacher, alone).item() / options.temperature**2)
    assert not nll.requires_grad and not distance.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32(dtype):
    options = DistillationOptions(alphas=(-1.0, 1.0), weight=0.7, label_smoothing=0.1)
    results = []
    for cast in (dtype, torch.float32):
        z = logits(1, 3.0, torch.float32).to(dtype).to(cast).requires_grad_()
        sums = DistillationLoss.apply(z, logits(2, 3.0, torch.float32).to(dtype).to(cast), TARGET, PAD, options)
        sums[0].backward()
        results.append((sums, z.grad))
    (half_sums, half_grad), (sums, grad) = results
    assert [x.dtype for x in half_sums] == [torch.float32] * 3 and half_grad.dtype == dtype
    assert [x.item() for x in half_sums] == [x.item() for x in sums]
    assert torch.equal(half_grad, grad.to(dtype))


def test_a_second_backward_says_why_it_fails():
    z = logits(1).requires_grad_()
    loss, _, _ = DistillationLoss.apply(z, logits(2), TARGET, PAD, DistillationOptions())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward"):
        loss.backward()


def test_without_gradients():
    with torch.no_grad():
        without = DistillationLoss.apply(logits(1).requires_grad_(), logits(2), TARGET, PAD, DistillationOptions())
    assert without[0] == DistillationLoss.apply(logits(1), logits(2), TARGET, PAD, DistillationOptions())[0]
