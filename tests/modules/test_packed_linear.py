"""Packed weights give what F.linear gives, in inference only, and never an old result."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mos_fairseq.modules import ElasticEmbedding, Linear, PackedWeight, kernels, onednn
from tests.seeds import moved

I, O = 13, 7  # noqa: E741
pytestmark = pytest.mark.skipif(not onednn.has_onednn(), reason="this torch has no oneDNN operators")


# fewest rows for oneDNN
AMD, INTEL, TORCH = (
    {"packed_rows": policy.packed_rows, "packed_rows_of_small": policy.packed_rows_of_small, "enabled": policy.enabled}
    for policy in (kernels.ZEN5, kernels.INTEL_AMX, replace(kernels.ZEN5, enabled=False))
)


@pytest.fixture
def multiplied(monkeypatch, use_kernels) -> list[int]:
    """Grows by one entry at each product with packed weights, on a processor of AMD's."""
    seen: list[int] = []
    original = onednn.multiply
    use_kernels(**AMD)
    monkeypatch.setattr(onednn, "multiply", lambda x, *rest: (seen.append(x.numel()), original(x, *rest))[1])
    return seen


def inputs(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(moved(2)))


def linear() -> Linear:
    torch.manual_seed(moved(1))
    return Linear(I, O).eval()


@pytest.mark.parametrize("shape", [(5,), (2, 3), (4, 1), (200,)])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_equals_torchs(shape, mode, multiplied):
    layer, x = linear(), inputs(*shape, I)
    with mode():
        for _ in range(3):
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)
    assert len(multiplied) == 2  # a weight seen once may not come again


@pytest.mark.parametrize("smallest", [O * I, O * I + 1])
@pytest.mark.parametrize("shape", [(1,), (2,), (1, 2), (2, 1), (3,), (5,)])
def test_one_or_two_rows_by_a_very_large_matrix_are_filled_up(shape, smallest, multiplied, use_kernels):
    use_kernels(**AMD, large_weight=0, filled_weight=smallest)
    packed, x, weight, bias = PackedWeight(), inputs(*shape, I), inputs(O, I + 2), inputs(O)
    with torch.no_grad():
        for _ in range(3):
            output = packed.linear(x, weight, bias)  # the columns that count decide
            torch.testing.assert_close(output, F.linear(x, weight[:, :I], bias), atol=1e-5, rtol=1e-5)
    assert output.is_contiguous()
    rows = x.numel() // I
    assert multiplied == [I * (4 if rows < 3 and smallest == O * I else rows)] * 2


def test_not_where_gradients_or_other_types_are_wanted(multiplied):
    layer, x = linear(), inputs(5, I)
    for _ in range(3):
        assert layer(x).requires_grad
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
    double, row = linear().double(), inputs(1, I)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(double(x.double()), F.linear(x.double(), double.weight, double.bias))
            layer(row)  # a single row of a small matrix: no faster
            assert layer(x[:0]).shape == (0, O)
    assert not multiplied


@torch.no_grad()
def step(layer):
    layer.weight.mul_(2)


def write_through_data(layer):
    layer.train()
    layer.weight.data.mul_(2)
    layer.eval()


def replace_data(layer):
    layer.weight.data = layer.weight.data * 2


CHANGES = {
    "in place": step,
    "written through .data while training": write_through_data,
    "other data": replace_data,
    "load_state_dict": lambda y: y.load_state_dict({n: 2 * p for n, p in y.state_dict().items()}),
    "_apply": lambda y: y._apply(lambda t: t.data.mul_(2)),
    "other type and back": lambda y: y.bfloat16().float(),
    "another parameter": lambda y: setattr(y, "weight", torch.nn.Parameter(y.weight.detach() * 2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_stale_weights_after(change, multiplied):
    layer, x = linear(), inputs(5, I)
    with torch.no_grad():
        before = [layer(x) for _ in range(2)][1]
    assert len(multiplied) == 1
    CHANGES[change](layer)
    with torch.no_grad():
        for _ in range(2):
            after = layer(x)
            torch.testing.assert_close(after, F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)
            assert not torch.equal(after, before)
    assert len(multiplied) == 2


def test_copies_and_pickles_start_empty(multiplied):
    layer, x = linear(), inputs(5, I)
    with torch.no_grad():
        expected = [layer(x) for _ in range(2)][1]
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert other._packed._made is None
            torch.testing.assert_close(other(x), expected, atol=1e-5, rtol=1e-5)
            other.weight.zero_()
    assert layer.weight.any() and isinstance(copy.copy(layer._packed), PackedWeight)


def test_embeddings_project_at_any_width(multiplied):
    torch.manual_seed(moved(1))
    table = ElasticEmbedding(O, I, 1).eval()
    with torch.no_grad():
        for width in (I, I, 5, 5, I, I):
            x = inputs(4, width)
            torch.testing.assert_close(table.project(x), x @ table.weight[:, :width].T, atol=1e-5, rtol=1e-5)
    assert len(multiplied) == 3


@pytest.mark.parametrize(
    ("processor", "rows", "packed"),
    [
        (INTEL, 4, []),
        (INTEL, 5, ["large"]),
        (AMD, 0, []),
        (AMD, 1, ["large"]),
        (AMD, 2, ["small", "large"]),
        (TORCH, 30, []),
        ({}, 30, []),
    ],
    ids=str,
)
def test_only_where_it_is_faster(processor, rows, packed, multiplied, use_kernels):
    use_kernels(**processor, large_weight=O * I)
    seen = []
    with torch.no_grad():
        for size, width in (("small", I - 1), ("large", I)):
            table, before = ElasticEmbedding(O, I, 1).eval(), len(multiplied)
            for _ in range(2):
                table.project(inputs(rows, width))  # the columns that count decide, as in a static twin
            seen += [size] * (len(multiplied) - before)
    assert seen == packed


@pytest.mark.slow
def test_compiles_without_a_break(multiplied, recwarn):
    layer, x = linear(), inputs(5, I)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(x), F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)
    assert not multiplied and not [w for w in recwarn if "cache" in str(w.message)]
