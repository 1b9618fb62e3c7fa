"""Elastic linear, layer norm and embedding use prefix slices; experts are mixed by an independent sum."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mos_fairseq.modules import ElasticEmbedding, ElasticLayerNorm, ElasticLinear, mix_experts
from tests.seeds import moved

EXPERTS, GROUPS, ROWS, COLUMNS = 3, 2, 7, 5
SIZES = [(ROWS, COLUMNS), (4, 3), (ROWS, 2), (1, COLUMNS)]


def leaf(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(moved(seed))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def probabilities(per_neuron: bool, rows: int, experts: int = EXPERTS) -> torch.Tensor:
    shape = (experts, GROUPS, rows) if per_neuron else (experts,)
    return leaf(*shape, seed=2).detach().softmax(0)


def naive(weight: torch.Tensor, probs: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    equation = "egr,egrc->grc" if probs.dim() == 3 else "e,egrc->grc"
    return torch.einsum(equation, probs, weight[:, :, :rows, :columns])


@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("experts", [2, EXPERTS])
def test_mix_experts_equals_einsum(rows, columns, per_neuron, experts):
    weight = leaf(experts, GROUPS, ROWS, COLUMNS)
    probs = probabilities(per_neuron, rows, experts).requires_grad_()
    merged, expected = mix_experts(weight, probs, rows, columns), naive(weight, probs, rows, columns)
    assert merged.shape == (GROUPS, rows, columns)
    torch.testing.assert_close(merged, expected)
    upstream = leaf(GROUPS, rows, columns, seed=4).detach()
    actual_grads = torch.autograd.grad(merged, (weight, probs), upstream)
    expected_grads = torch.autograd.grad(expected, (weight, probs), upstream)
    torch.testing.assert_close(actual_grads, expected_grads)
    assert not actual_grads[0][:, :, rows:].any() and not actual_grads[0][..., columns:].any()


@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize(("rows", "columns"), SIZES[:2])
def test_mix_experts_gradcheck(rows, columns, per_neuron):
    weight, probs = leaf(EXPERTS, GROUPS, ROWS, COLUMNS), probabilities(per_neuron, rows).requires_grad_()
    assert torch.autograd.gradcheck(lambda w, p: mix_experts(w, p, rows, columns), (weight, probs))
    # either input may be frozen
    assert torch.autograd.gradcheck(lambda w: mix_experts(w, probs.detach(), rows, columns), (weight,))
    assert torch.autograd.gradcheck(lambda p: mix_experts(weight.detach(), p, rows, columns), (probs,))


def test_mix_experts_casts_fp32_probabilities_to_the_weights():
    weight, probs = leaf(EXPERTS, GROUPS, ROWS, COLUMNS).detach().bfloat16(), probabilities(True, ROWS).float()
    merged = mix_experts(weight, probs, ROWS, COLUMNS)
    assert merged.dtype == torch.bfloat16
    expected = naive(weight.double(), probs.double(), ROWS, COLUMNS)
    torch.testing.assert_close(merged.double(), expected, atol=0.05, rtol=0.05)


def elastic_linear(num_experts: int = 1, **options) -> ElasticLinear:
    torch.manual_seed(moved(3))
    linear = ElasticLinear(COLUMNS, ROWS, groups=GROUPS, num_experts=num_experts, **options).double()
    if linear.bias is not None:
        nn.init.normal_(linear.bias)
    return linear


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_linear_uses_the_first_rows_of_each_group(rows, columns):
    linear, x = elastic_linear(), leaf(2, 6, columns).detach()
    linear.set_active_size(columns, rows)
    weight, bias = linear.weight[0], linear.bias[0]
    expected = torch.cat([x @ weight[g, :rows, :columns].T + bias[g, :rows] for g in range(GROUPS)], dim=-1)
    torch.testing.assert_close(linear(x), expected)
    linear.materialize()
    torch.testing.assert_close(linear(x), expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("per_neuron", [False, True])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_linear_mixes_weights_and_biases_alike(rows, columns, per_neuron, bias):
    linear, x = elastic_linear(EXPERTS, bias=bias), leaf(6, columns).detach()
    probs = probabilities(per_neuron, rows)
    linear.set_active_size(columns, rows)
    linear.materialize(probs)
    parts = []
    for g in range(GROUPS):
        for r in range(rows):
            p = probs[:, g, r] if per_neuron else probs
            value = sum(p[e] * (x @ linear.weight[e, g, r, :columns]) for e in range(EXPERTS))
            parts.append(value + (sum(p[e] * linear.bias[e, g, r] for e in range(EXPERTS)) if bias else 0))
    torch.testing.assert_close(linear(x), torch.stack(parts, dim=-1))


@pytest.mark.parametrize("rows_of_x", [6, 600])
@pytest.mark.parametrize("per_neuron", [False, True])
def test_merged_weights_are_made_again_for_the_backward_pass(per_neuron, rows_of_x, use_kernels):
    """They are not held, and the gradients, and gradients of gradients, are those of plain autograd."""
    use_kernels(remade_mixture=4 * 3 * GROUPS, training_multiplications=10_000)  # the larger one by oneDNN
    linear, x = elastic_linear(EXPERTS).float(), torch.randn(rows_of_x, 3, requires_grad=True)
    probs = probabilities(per_neuron, 4).float().detach().requires_grad_()
    linear.set_active_size(3, 4)
    linear.materialize(probs)
    merged, kept = weakref.ref(linear._materialized[0].untyped_storage()), linear.merge(probs)
    actual, expected = linear(x), F.linear(x, *kept)
    linear.release()
    assert merged() is None
    linear.set_active_size(COLUMNS, ROWS)  # other sizes by then do not matter
    inputs = (x, probs, *linear.parameters())
    gradients = (torch.autograd.grad(output.square().sum(), inputs) for output in (actual, expected))
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-4)  # sums over hundreds of rows, in fp32
    linear.set_active_size(3, 4)
    linear.materialize(probs)
    penalties = []
    for y in (linear(x), F.linear(x, *linear.merge(probs))):
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        penalties.append(torch.autograd.grad(slope.square().sum(), (x, probs, linear.weight)))
    torch.testing.assert_close(*penalties, atol=1e-3, rtol=1e-4)


def test_small_merged_weights_are_held(use_kernels):
    use_kernels()
    linear, x, probs = elastic_linear(EXPERTS), leaf(2, COLUMNS), probabilities(False, ROWS)
    linear.materialize(probs)
    storage = weakref.ref(linear._materialized[0].untyped_storage())
    y = linear(x)
    linear.release()
    assert storage() is not None
    y.sum().backward()
    assert storage() is None


@pytest.mark.parametrize("changed", ["x", "weight", "probs"])
def test_changes_before_the_backward_pass_are_refused(changed, use_kernels):
    """As autograd does without merging again; a weight that was held would still be right."""
    use_kernels(remade_mixture=1)
    linear, x, probs = elastic_linear(EXPERTS), leaf(2, COLUMNS), probabilities(True, ROWS)
    tensors = {"x": x * 1, "weight": linear.weight, "probs": probs}
    linear.materialize(probs)
    y = linear(tensors["x"])
    with torch.no_grad():
        tensors[changed].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.sum(), linear.weight if changed == "x" else x)


def test_a_second_merge_forgets_the_first(use_kernels):
    use_kernels(remade_mixture=1)
    linear, x, (first, second) = elastic_linear(EXPERTS), leaf(2, COLUMNS), (leaf(EXPERTS, seed=i) for i in (1, 2))
    linear.materialize(first)
    with torch.no_grad():
        linear.materialize(second)
    weight = linear._materialized[0]
    torch.testing.assert_close(torch.autograd.grad(linear(x).sum(), x)[0], weight.sum(0).expand(2, -1))


def test_other_layouts_of_the_weights_have_the_same_gradients(use_kernels):
    use_kernels(remade_mixture=1)
    linear, x, probs = elastic_linear(EXPERTS), leaf(2, COLUMNS), probabilities(True, ROWS)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        linear.to(memory_format=layout).materialize(probs)
        gradients.append(torch.autograd.grad(linear(x).square().sum(), (x, linear.weight)))
    torch.testing.assert_close(*gradients)


def test_linear_with_experts_refuses_to_run_unmixed():
    linear = elastic_linear(EXPERTS)
    with pytest.raises(ValueError, match="router"):
        linear(leaf(2, COLUMNS))
    linear.materialize(probabilities(False, ROWS))
    linear.set_active_size(COLUMNS, 2)  # the merged weights are of another size now
    with pytest.raises(ValueError, match="router"):
        linear(leaf(2, COLUMNS))


@pytest.mark.parametrize("sizes", [(COLUMNS + 1, ROWS), (COLUMNS, ROWS + 1), (0, ROWS), (COLUMNS, 0)])
def test_linear_refuses_impossible_sizes(sizes):
    with pytest.raises(ValueError, match="allowed are 1 to"):
        elastic_linear().set_active_size(*sizes)


def test_materialized_slices_are_used_until_release():
    linear, norm = elastic_linear(EXPERTS), ElasticLayerNorm(COLUMNS)
    x, probs = leaf(2, COLUMNS).detach(), probabilities(False, ROWS)
    linear.materialize(probs)
    before = linear(x)
    with torch.no_grad():
        linear.weight.add_(1)
    torch.testing.assert_close(linear(x), before)
    linear.materialize(probs)
    assert not torch.allclose(linear(x), before)
    norm.materialize()
    norm.set_active_size(3)
    assert norm(x.float()[:, :3]).shape == (2, 3)


@pytest.mark.parametrize("width", [9, 4, 1])
def test_layer_norm_normalises_over_the_active_width(width):
    norm = ElasticLayerNorm(9).double()
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    norm.set_active_size(width)
    x = leaf(2, 3, width).detach()
    centred = x - x.mean(-1, keepdim=True)
    normalised = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = normalised * norm.weight[:width] + norm.bias[:width]
    torch.testing.assert_close(norm(x), expected)
    norm(x).square().sum().backward()
    assert not norm.weight.grad[width:].any() and not norm.bias.grad[width:].any()


@pytest.mark.parametrize("width", [6, 4])
def test_embedding_reads_and_projects_the_first_columns(width):
    table = ElasticEmbedding(11, 6, padding_idx=1)
    assert not table.weight[1].any() and table.weight[[0, 2]].all()
    tokens = torch.tensor([[4, 10, 1], [0, 3, 4]])
    embedded = table(tokens, width)
    assert embedded.shape == (2, 3, width)
    for b in range(2):
        for t in range(3):
            torch.testing.assert_close(embedded[b, t], table.weight[tokens[b, t], :width])
    torch.testing.assert_close(table.project(embedded), embedded @ table.weight[:, :width].T)
    embedded.sum().backward()
    assert not table.weight.grad[:, width:].any()
    assert not table.weight.grad[1].any()  # padding learns nothing
    torch.testing.assert_close(table.weight.grad[4, :width], torch.full((width,), 2.0))


def test_initial_standard_deviations():
    """Each group is drawn as a matrix of its own, and merged experts have the spread of an ordinary layer."""
    torch.manual_seed(moved(0))
    for num_experts in (1, 2, 4):
        linear = ElasticLinear(256, 512, groups=3, num_experts=num_experts, gain=0.5)
        expected = nn.init.xavier_uniform_(torch.empty(512, 256), gain=0.5).std()
        for probs in (torch.full((num_experts,), 1 / num_experts), torch.full((num_experts, 3, 512), 1 / num_experts)):
            weight, bias = linear.merge(probs)
            for group in weight.view(3, 512, 256):
                torch.testing.assert_close(group.std(), expected, rtol=0.01, atol=0)
            assert not bias.any()


def test_linear_equals_torch_linear_at_full_size():
    linear = elastic_linear()
    x = leaf(4, COLUMNS).detach()
    weight, bias = linear.weight.view(GROUPS * ROWS, COLUMNS), linear.bias.view(GROUPS * ROWS)
    torch.testing.assert_close(linear(x), F.linear(x, weight, bias))
