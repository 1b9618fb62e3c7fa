"""Products of training by oneDNN: values and gradients of torch's own linear."""

import pytest
import torch
import torch.nn.functional as F

from mos_fairseq.modules import ElasticLinear, Linear, onednn
from tests.seeds import moved

ROWS, I, O = (37, 7), 13, 11  # noqa: E741
SMALL = {"training_multiplications": 200 * I * O, "gradient_rows": 4}
pytestmark = pytest.mark.skipif(not onednn.has_onednn(), reason="this torch has no oneDNN operators")


@pytest.fixture(autouse=True)
def small_products(use_kernels):
    use_kernels(**SMALL)


def tensors(*shapes, requires_grad=True):
    generator = torch.Generator().manual_seed(moved(3))
    return [torch.randn(*shape, generator=generator).requires_grad_(requires_grad) for shape in shapes]


def outcome(product, x, weight, bias):
    copies = [None if t is None else t.detach().clone().requires_grad_() for t in (x, weight, bias)]
    (grad,) = tensors((*x.shape[:-1], weight.size(0)), requires_grad=False)
    output = product(copies[0], copies[1][:, : x.size(-1)], copies[2])
    output.backward(grad)
    return [output, *(None if t is None else t.grad for t in copies)]


@pytest.mark.parametrize("weight_columns", [I, I + 4])  # a subnet's weight is a slice
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_torchs_linear(weight_columns, with_bias):
    x, weight, bias = tensors((*ROWS, I), (O, weight_columns), (O,))
    bias = bias if with_bias else None
    assert onednn.suits_training(x, weight[:, :I])
    mine, torchs = (outcome(product, x, weight, bias) for product in (onednn.linear, F.linear))
    for found, wanted in zip(mine, torchs, strict=True):
        assert (found is None) == (wanted is None)
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


def test_large_slices_are_left_to_torch(use_kernels):
    x, weight = tensors((*ROWS, I), (O, I + 4))
    use_kernels(**SMALL, training_copied_weight=O * I - 1)
    assert not onednn.suits_training(x, weight[:, :I]) and onednn.suits_training(x, weight[:, :I].contiguous())


def test_what_is_frozen_gets_no_gradient():
    x, weight, bias = tensors((*ROWS, I), (O, I), (O,))
    for frozen in (x, weight, bias):
        x_, w_, b_ = (t.detach().requires_grad_(t is not frozen) for t in (x, weight, bias))
        onednn.linear(x_, w_, b_).sum().backward()
        assert [t.grad is None for t in (x_, w_, b_)] == [t is frozen for t in (x, weight, bias)]


@pytest.mark.parametrize("weight_columns", [I, I + 4])
def test_gradients_can_be_differentiated(weight_columns):
    def second(product):
        x, weight = tensors((*ROWS, I), (O, weight_columns))
        grads = torch.autograd.grad(product(x, weight[:, :I], None).square().sum(), (x, weight), create_graph=True)
        return [second for grad in grads for second in torch.autograd.grad(grad.sum(), (x, weight), retain_graph=True)]

    for found, wanted in zip(second(onednn.linear), second(F.linear), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("make", [lambda: Linear(I, O), lambda: ElasticLinear(I + 4, O + 2)], ids=["dense", "elastic"])
def test_modules_train_with_it(make, monkeypatch):
    seen = []
    linear = onednn.linear
    monkeypatch.setattr(onednn, "linear", lambda *args: (seen.append(args[0].shape), linear(*args))[1])
    torch.manual_seed(moved(1))
    module = make()
    if isinstance(module, ElasticLinear):
        module.set_active_size(I, O)
        module.materialize()
    (x,) = tensors((*ROWS, I))
    module(x).sum().backward()
    assert seen == [(*ROWS, I)] and module.weight.grad.any()
    module(x[:1])  # few rows: torch's
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x).dtype == torch.bfloat16
    assert len(seen) == 1
