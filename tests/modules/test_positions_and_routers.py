"""Position embeddings at each width; routers."""

import copy
import math

import pytest
import torch
from fairseq.modules import LearnedPositionalEmbedding, SinusoidalPositionalEmbedding

from mos_fairseq.modules import ElasticLinear, LayerRouter, NeuronRouter, PositionalEmbedding
from mos_fairseq.modules.router import probs_of
from tests.pretend_cuda import pretend_cuda

PAD = 1
TOKENS = torch.tensor([[PAD, PAD, 5, 6, 7], [4, 5, PAD, PAD, PAD], [4, 5, 6, 7, 8]])


def embedded(width: int, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    return torch.zeros(*tokens.shape, width)


def test_sinusoidal_positions_are_columns_of_fairseqs():
    for width in (12, 7):
        positions = PositionalEmbedding(10, width, PAD)
        stock = SinusoidalPositionalEmbedding(width, PAD, init_size=12)(TOKENS)
        for narrower in (width, 5, width):
            actual = positions(TOKENS, embedded(narrower))
            torch.testing.assert_close(actual, stock[..., :narrower], msg=f"width {narrower} of {width}")
        assert not list(positions.parameters()) and not positions.state_dict()


def test_learned_positions_equal_fairseq_and_are_sliced():
    positions = PositionalEmbedding(10, 12, PAD, learned=True)
    stock = LearnedPositionalEmbedding(10 + PAD + 1, 12, PAD)
    assert positions.weight.shape == stock.weight.shape and not positions.weight[PAD].any()
    stock.load_state_dict(positions.state_dict())
    torch.testing.assert_close(positions(TOKENS, embedded(12)), stock(TOKENS))
    actual = positions(TOKENS, embedded(8))
    torch.testing.assert_close(actual, stock(TOKENS)[..., :8])
    actual.sum().backward()
    assert not positions.weight.grad[:, 8:].any() and not positions.weight.grad[PAD].any()
    assert positions.weight.grad[PAD + 1 : PAD + 6, :8].all()


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("width", [12, 7])
def test_step_equals_the_last_position_of_forward(learned, width):
    positions = PositionalEmbedding(10, 12, PAD, learned)
    for length in (1, 2, 10):
        tokens = torch.full((3, length), 5)
        step = positions.step(length, embedded(width, tokens[:, -1:]))
        assert step.shape == (1, 1, width)
        torch.testing.assert_close(step.expand(3, 1, -1), positions(tokens, embedded(width, tokens))[:, -1:])


def test_sentences_longer_than_the_table():
    positions = PositionalEmbedding(4, 8, PAD)
    tokens = torch.full((2, 30), 5)
    stock = SinusoidalPositionalEmbedding(8, PAD, init_size=64)
    torch.testing.assert_close(positions(tokens, embedded(8, tokens)), stock(tokens))
    fresh = PositionalEmbedding(4, 8, PAD)
    torch.testing.assert_close(fresh.step(30, embedded(8, tokens[:, :1]))[0, 0], stock(tokens)[0, -1])


def test_tables_follow_the_dtype():
    positions = PositionalEmbedding(10, 12, PAD)
    for dtype in (torch.float32, torch.bfloat16, torch.float64, torch.float32):
        assert positions(TOKENS, embedded(12).to(dtype)).dtype == dtype
    assert not positions(TOKENS, embedded(12))[0, :2].any()  # padding has no position


ENCODING = torch.tensor([1.0, 0.5, 0.25])
EXPERTS, GROUPS, ROWS = 3, 2, 7


MLP = {"lowest": (0.5, 1.0, 0.2), "hidden_dim": 11, "num_layers": 2, "dropout": 0.0}


def layer_router(**options) -> LayerRouter:
    return LayerRouter(**MLP | {"num_experts": EXPERTS} | options)


def neuron_router(**options) -> NeuronRouter:
    linear = ElasticLinear(5, ROWS, groups=GROUPS, num_experts=EXPERTS)
    return NeuronRouter(**MLP | {"linear": linear} | options)


def test_layer_router_is_an_mlp_with_softmax():
    router = layer_router()
    hidden = (router.trunk[0].weight @ ENCODING + router.trunk[0].bias).clamp(min=0)
    logits = (router.head.weight @ hidden + router.head.bias).tolist()
    expected = [math.exp(z) / sum(map(math.exp, logits)) for z in logits]
    probs = router(ENCODING)
    assert probs.shape == (EXPERTS,)
    assert probs.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rows", [ROWS, 4, 1])
def test_neuron_router_gives_each_active_row_its_mixture(rows):
    router = neuron_router()
    torch.nn.init.normal_(router.head.bias)
    probs = router(ENCODING, rows)
    assert probs.shape == (EXPERTS, GROUPS, rows)
    torch.testing.assert_close(probs.sum(0), torch.ones(GROUPS, rows))
    hidden = (router.trunk[0].weight @ ENCODING + router.trunk[0].bias).clamp(min=0)
    for g in range(GROUPS):
        for r in range(rows):  # rows of the head are ordered by expert, then group
            index = [e * GROUPS + g for e in range(EXPERTS)]
            logits = router.head.weight[0, index, r] @ hidden + router.head.bias[0, index, r]
            torch.testing.assert_close(probs[:, g, r], logits.softmax(0))
    torch.testing.assert_close(probs, router(ENCODING, ROWS)[:, :, :rows])


def test_neuron_router_computes_only_active_rows(monkeypatch):
    router, sizes = neuron_router(), []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w, b: sizes.append(w.shape) or linear(x, w, b))
    router(ENCODING, 4)
    assert sizes[-1] == (EXPERTS * GROUPS * 4, 11)
    monkeypatch.undo()
    router(ENCODING, 4).square().sum().backward()
    assert not router.head.weight.grad[:, :, 4:].any() and not router.head.bias.grad[:, :, 4:].any()
    assert router.head.weight.grad[:, :, :4].any()


@torch.no_grad()
def step(router):
    router.head.weight.mul_(-2)


def write_through_data(router):
    router.train()
    router.head.weight.data.mul_(-2)
    router.eval()


CHANGES = {
    "in place": step,
    "written through .data while training": write_through_data,
    "load_state_dict": lambda y: y.load_state_dict({n: -2 * p for n, p in y.state_dict().items()}),
    "other type and back": lambda y: (y.double(), step(y), y.float()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_neuron_router_in_inference_keeps_no_old_weights(change, mode, use_kernels):
    use_kernels(transposed_router=True)
    router, before = neuron_router().eval(), None
    for _ in range(2):
        with mode():
            found = [router(ENCODING, rows) for rows in (4, ROWS, 4)]
        wanted = [router(ENCODING, rows).detach() for rows in (4, ROWS, 4)]
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
        assert before is None or not torch.allclose(found[1], before, atol=1e-3)
        before = found[1]
        CHANGES[change](router)
    with mode():
        router(ENCODING, 4)
        made = router._transposed._made
        router(ENCODING, ROWS)
    assert made is not None and router._transposed._made is made  # once for all subnets
    assert copy.deepcopy(router)._transposed._made is None


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_routers_of_a_layer_are_one_product_on_a_gpu(monkeypatch, layers):
    """And on a CPU as many as there are, so that they round as alone."""
    routers, rows, products = [neuron_router(num_layers=layers) for _ in range(3)], (4, ROWS, 1), []
    there = torch.nn.ModuleList(copy.deepcopy(routers))
    alone = [router(ENCODING, o) for router, o in zip(routers, rows, strict=True)]
    sum(probs.square().sum() for probs in alone).backward()
    assert all(map(torch.equal, probs_of(routers, ENCODING, rows), alone))
    linear = torch.nn.functional.linear
    with pretend_cuda():
        there = there.to("cuda")
        monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w, b: products.append(w) or linear(x, w, b))
        found = probs_of(there, ENCODING.to("cuda"), rows)
        sum(probs.square().sum() for probs in found).backward()
    assert len(products) == {1: 3, 2: 1 + 3, 3: 1 + 3 + 3}[layers]
    for probs, expected in zip(found, alone, strict=True):
        torch.testing.assert_close(probs.values, expected)
    for mine, theirs in zip(there.parameters(), torch.nn.ModuleList(routers).parameters(), strict=True):
        torch.testing.assert_close(mine.grad.values, theirs.grad)


@pytest.mark.parametrize("make", [layer_router, neuron_router])
def test_softmax_is_fp32_whatever_the_router(make):
    router = make().bfloat16()
    probs = router(ENCODING.bfloat16(), *([5] if make is neuron_router else []))
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs.sum(0), torch.ones_like(probs.sum(0)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_number_of_layers_and_dropout(layers):
    router = layer_router(num_layers=layers, dropout=0.6)
    linears = [m for m in router.modules() if isinstance(m, torch.nn.Linear)]
    assert [m.in_features for m in linears] == [3, 11, 11][:layers]
    assert linears[-1].out_features == EXPERTS
    draws = {tuple(router.train()(ENCODING).tolist()) for _ in range(8)}
    assert (len(draws) == 1) == (layers == 1)  # a linear router has nothing to drop
    assert len({tuple(router.eval()(ENCODING).tolist()) for _ in range(8)}) == 1
    assert router(ENCODING).sum().item() == pytest.approx(1)


def test_router_does_not_own_the_linear_it_serves():
    assert sum(p.numel() for p in neuron_router().parameters()) == 3 * 11 + 11 + EXPERTS * GROUPS * ROWS * 12
