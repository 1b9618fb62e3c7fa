"""The criterion equals fairseq's stock one; a teacher's distribution in place of the smoothed labels."""

import copy

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion

from mos_fairseq.criterions import LabelSmoothedCrossEntropyMosCriterion
from mos_fairseq.errors import InputError
from tests.helpers import batch, fake_task, sample_of, supernet
from tests.seeds import moved

VOCABULARY, PAD = 31, 1
TOLERANCE = {"atol": 1e-6, "rtol": 1e-5}


class Logits(torch.nn.Module):
    """A model whose output is its parameter [B, T, V]."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(moved(1))
        self.logits = torch.nn.Parameter((3 * torch.randn(*shape, VOCABULARY, generator=generator)).to(dtype))

    def forward(self, src_tokens, src_lengths, prev_output_tokens):
        return self.logits, {}

    def get_normalized_probs(self, net_output, log_probs, sample=None):
        result = net_output[0].float().log_softmax(-1)
        return result if log_probs else result.exp()

    def get_targets(self, sample, net_output):
        return sample["target"]


def criterions(smoothing: float, sentence_avg: bool = False, **options) -> tuple:
    arguments = (fake_task(), sentence_avg, smoothing)
    stock = LabelSmoothedCrossEntropyCriterion(*arguments, **options)
    return stock, LabelSmoothedCrossEntropyMosCriterion(*arguments, **options)


def compare(ours, stock, models, sample, **options) -> None:
    """Loss (of every token, where not reduced), sample size, logs and gradients."""
    results = [criterion(model, sample, **options) for criterion, model in zip((stock, ours), models, strict=True)]
    (expected, expected_size, expected_log), (actual, size, log) = results
    torch.testing.assert_close(actual, expected.view_as(actual), **TOLERANCE)
    assert size == expected_size
    assert log.keys() == expected_log.keys()
    for name, value in expected_log.items():
        logged = torch.as_tensor(log[name])
        torch.testing.assert_close(logged, torch.as_tensor(value).view_as(logged))
    for loss in (expected, actual):
        (loss.sum() * 0.7).backward()
    for theirs, mine in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, **TOLERANCE)
        assert mine.grad.any()


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("sentence_avg", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_stock(smoothing, sentence_avg, reduce, prefix):
    options = {"ignore_prefix_size": prefix, "report_accuracy": prefix == 0}
    stock, ours = criterions(smoothing, sentence_avg, **options)
    sample = sample_of(*batch())
    model = Logits(sample["target"].shape)
    compare(ours, stock, (model, copy.deepcopy(model)), sample, reduce=reduce)


def test_padding_gets_no_gradient():
    _, ours = criterions(0.1)
    sample = sample_of(*batch())
    model = Logits(sample["target"].shape)
    ours(model, sample)[0].backward()
    padding = sample["target"].eq(PAD)
    assert padding.any() and not model.logits.grad[padding].any() and model.logits.grad[~padding].all()


def test_equals_stock_on_a_supernet():
    stock, ours = criterions(0.1, report_accuracy=True)
    model = supernet(mos_routing="neuron", dropout=0.0, router_dropout=0.0)
    compare(ours, stock, (model, copy.deepcopy(model)), sample_of(*batch()))


def test_equals_stock_in_bfloat16():
    stock, ours = criterions(0.1)
    sample = sample_of(*batch())
    model = Logits(sample["target"].shape, torch.bfloat16)
    compare(ours, stock, (model, copy.deepcopy(model)), sample)


def test_gradient_equals_finite_differences_of_the_definition():
    """In float64, from the definition (1 - eps - eps_i) nll + eps_i sum_v -log p_v, eps_i = eps / (V - 1)."""
    sample = sample_of(*batch())
    model = Logits(sample["target"].shape)
    loss, _, log = criterions(0.1)[1](model, sample)
    loss.backward()
    logits = model.logits.detach().double().requires_grad_()
    target, expected, nll, eps_i = sample["target"], 0.0, 0.0, 0.1 / (VOCABULARY - 1)
    for b, t in target.ne(PAD).nonzero().tolist():
        log_probs = logits[b, t] - logits[b, t].exp().sum().log()
        nll = nll - log_probs[target[b, t]]
        for v in range(VOCABULARY):
            weight = 1 - 0.1 if v == target[b, t] else eps_i
            expected = expected - weight * log_probs[v]
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert log["nll_loss"].item() == pytest.approx(nll.item(), rel=1e-6)
    torch.testing.assert_close(model.logits.grad.double(), logits.grad, atol=1e-6, rtol=1e-5)


def test_a_second_backward_says_why_it_fails(use_kernels):
    use_kernels()
    _, ours = criterions(0.1)
    sample = sample_of(*batch())
    model = Logits(sample["target"].shape)
    loss, _, _ = ours(model, sample)
    loss.backward(retain_graph=True)
    once = model.logits.grad.clone()
    with pytest.raises(RuntimeError, match="one backward"):
        loss.backward()
    assert torch.equal(model.logits.grad, once)


def test_logged_values_carry_no_graph():
    sample = sample_of(*batch())
    _, _, log = criterions(0.1, report_accuracy=True)[1](Logits(sample["target"].shape), sample)
    assert log["n_correct"] >= 0
    assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value in log.values())


@pytest.mark.parametrize("value", [-0.1, 1.0, 2.0])
def test_impossible_label_smoothing_is_refused(value):
    with pytest.raises(InputError, match=f"label_smoothing is {value}"):
        LabelSmoothedCrossEntropyMosCriterion(fake_task(), False, value)
