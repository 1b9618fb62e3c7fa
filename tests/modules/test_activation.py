"""Activation functions against fairseq's."""

import pytest
import torch
from fairseq import utils

from mos_fairseq.modules.activation import activation_function

NUMBERS = torch.cat([torch.linspace(-9, 9, 4001), torch.tensor([-1e30, -60.0, -0.0, 0.0, 60.0, 1e30])])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(set(utils.get_available_activation_fns()) - {"swish"}))
def test_values_and_gradients_are_fairseqs(name, dtype):
    x = NUMBERS.clamp(-6e4, 6e4).to(dtype) if dtype == torch.float16 else NUMBERS.to(dtype)
    upstream = torch.linspace(-2, 2, len(x)).to(dtype)
    found = []
    for function in (activation_function(name), utils.get_activation_fn(name)):
        y = function(leaf := x.clone().requires_grad_())
        y.backward(upstream)
        found.append((y.detach(), leaf.grad))
    # within a unit in the last place: another processor may round otherwise
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=torch.finfo(dtype).eps, atol=1e-7, equal_nan=True)


def test_swish_is_a_function():
    torch.testing.assert_close(activation_function("swish")(NUMBERS), torch.nn.functional.silu(NUMBERS))
