"""In evaluation the weights are merged once per subnet, and again after any change to them or to the subnet."""

import copy

import pytest
import torch
from fairseq.optim.adam import Adam
from omegaconf import OmegaConf

import mos_fairseq.modules.elastic_linear as elastic_linear
from mos_fairseq.modules import LayerRouter, NeuronRouter
from mos_fairseq.optim import AdamFused, AdamFusedConfig
from tests.helpers import batch, decode_stepwise, small_space, supernet


@pytest.fixture(autouse=True)
def packed(use_kernels) -> None:
    """On any processor, weights as small as these are."""
    use_kernels(packed_rows=1, packed_rows_of_small=1)


@pytest.fixture(params=["layer", "neuron"])
def model(request):
    return supernet(mos_routing=request.param, mos_linears="all", dropout=0.0, router_dropout=0.0).eval()


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Grows by one entry at each mixture and each router's forward."""
    seen: list[str] = []

    def counted(function, name):
        def call(*args):
            seen.append(name)
            return function(*args)

        return call

    monkeypatch.setattr(elastic_linear, "mix_experts", counted(elastic_linear.mix_experts, "mix"))
    for router in (LayerRouter, NeuronRouter):
        monkeypatch.setattr(router, "forward", counted(router.forward, "route"))
    return seen


def forward(model) -> torch.Tensor:
    src, prev, target = batch()
    return model(src, src.ne(1).sum(1), prev)[0][target.ne(1)]


@torch.no_grad()
def evaluate(model) -> torch.Tensor:
    return forward(model)


def recomputed(model) -> torch.Tensor:
    """Return the model's output without any cache."""
    with torch.enable_grad():
        return forward(model).detach()


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for rounding: with a cache, routers and packed weights multiply in another order."""
    rounding = {torch.float16: 1e-2, torch.bfloat16: 5e-2}.get(actual.dtype, 2e-5)
    torch.testing.assert_close(actual, expected, atol=rounding, rtol=rounding)


def expected_calls(model) -> dict[str, int]:
    subnet = model.active_subnet
    mixes = 4 * subnet.encoder_layers + 7 * subnet.decoder_layers
    layers = subnet.encoder_layers + subnet.decoder_layers
    layer_wise = isinstance(model.encoder.layers[0].router, LayerRouter)
    return {"mix": mixes, "route": layers if layer_wise else mixes}


def count(calls: list[str]) -> dict[str, int]:
    result = {name: calls.count(name) for name in ("mix", "route")}
    calls.clear()
    return result


@torch.no_grad()
def test_merged_once_per_subnet_over_forwards_and_decoding_steps(model, calls):
    for subnet in (model.search_space.smallest(), model.search_space.largest(), model.search_space.sample_subnet(3)):
        model.set_active_subnet(subnet)
        assert count(calls) == {"mix": 0, "route": 0}
        src, prev, _ = batch(((6, 6), (4, 6)))
        decode_stepwise(model, model.encoder(src), prev)
        assert count(calls) == expected_calls(model)
        for _ in range(3):
            evaluate(model)
            decode_stepwise(model, model.encoder(src), prev)
        with torch.inference_mode():
            forward(model)
        assert count(calls) == {"mix": 0, "route": 0}


def test_training_and_grad_mode_merge_at_every_forward(model, calls):
    for mode in (False, True):
        model.train(mode)
        for _ in range(2):
            forward(model)
            assert count(calls) == expected_calls(model)


def optimizer_step(model):
    model.zero_grad()
    forward(model).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def add_to_weights(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)


def load_other(model):
    other = supernet(seed=9, mos_routing=str(model.cfg.mos_routing), mos_linears="all")
    assert model.load_state_dict(other.state_dict()).missing_keys == []


def new_parameters(model):
    for module in model.encoder.layers.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(parameter.detach() * 1.1))


def there_and_back(model):
    """Rounds the weights; the new tensors may well lie where the old ones did."""
    model.bfloat16()
    model.float()


CHANGES = {
    "smaller subnet": lambda m: m.set_active_subnet(m.search_space.smallest()),
    "optimizer step": optimizer_step,
    "in place": add_to_weights,
    "load_state_dict": load_other,
    "new parameters": new_parameters,
    "double": lambda m: m.double(),
    "bfloat16": lambda m: m.bfloat16(),
    "half": lambda m: m.half(),
    "rounded": there_and_back,
    "_apply at the same address": lambda m: m._apply(lambda t: t.data.mul_(1.1) if t.is_floating_point() else t),
    "train, .data, eval": lambda m: (m.train(), m.encoder.layers[0].fc1.weight.data.add_(0.1), m.eval()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_cache_is_renewed_after(change, model):
    before = evaluate(model)
    CHANGES[change](model)
    after = evaluate(model)
    close(after, recomputed(model))
    assert after.dtype != before.dtype or not torch.equal(after, before)


@pytest.mark.parametrize("switch", [lambda m: m.train().eval(), lambda m: m.set_active_subnet(m.active_subnet)])
def test_caches_are_dropped_by(switch, model, calls):
    evaluate(model), evaluate(model)
    count(calls)
    packed = model.encoder.layers[0].fc1._packed
    assert packed._made is not None
    switch(model)
    assert packed._made is None and packed._weight is None  # it would take as much memory as the weights
    evaluate(model)
    assert count(calls) == expected_calls(model)


@pytest.mark.slow
def test_every_kind_of_parameter_is_watched(model):
    """A change of any one parameter of an active layer shows at the next forward."""
    before = evaluate(model)
    layers = {name: p for name, p in model.named_parameters() if "layers.0." in name}
    with torch.no_grad():
        for name, parameter in layers.items():
            if "qkv_proj.bias" in name or "kv_proj.bias" in name:
                continue  # a shift of all keys does nothing
            parameter.add_(torch.randn_like(parameter) * 0.1)
            after = evaluate(model)
            assert not torch.equal(after, before), name
            before = after


def test_writes_through_data_alone_are_not_seen_until_the_mode_is_set(model):
    """torch counts no version for ``.data``: without a forward with autograd, nothing detects the change."""
    before = evaluate(model)
    model.decoder.layers[0].fc1.weight.data.add_(1.0)
    close(evaluate(model), before)
    model.eval()
    assert not torch.allclose(evaluate(model), before)


# --- optimizers that raise no version counter, where the mode does not change between updates ---

OPTIMIZERS = {
    "adam": lambda params: Adam(params, lr=0.01),
    "adam_fused": lambda params: AdamFused(OmegaConf.structured(AdamFusedConfig(lr=[0.01])), params).optimizer,
    "AdamW, fused": lambda params: torch.optim.AdamW(params, lr=0.01, fused=True),
    "SGD": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9),
}


def sampled_before(model, step):
    evaluate(model), evaluate(model)  # what is packed is packed at the second
    forward(model).square().mean().backward()
    step()


def sampled_before_the_backward_pass(model, step):
    loss = forward(model).square().mean()
    evaluate(model), evaluate(model)
    loss.backward()
    step()


def another_subnet_trains(model, step):
    """The largest subnet's other layers have no part in it, and are moved by momentum all the same."""
    evaluate(model), evaluate(model)
    model.set_active_subnet(model.search_space.smallest())
    forward(model).square().mean().backward()
    step()
    model.set_active_subnet(model.search_space.largest())


def features_train(model, step):
    """The shared embedding learns, and its output projection has no part in it."""
    evaluate(model), evaluate(model)
    src, prev, target = batch()
    features = model(src, src.ne(1).sum(1), prev, features_only=True)[0][target.ne(1)]
    features.square().mean().backward()
    step()


UPDATES = [sampled_before, sampled_before_the_backward_pass, another_subnet_trains, features_train]


@pytest.mark.parametrize(
    ("kind", "update", "optimizer"),
    [
        *(("neuron", update, "adam") for update in UPDATES),
        *(("neuron", sampled_before, optimizer) for optimizer in OPTIMIZERS if optimizer != "adam"),
        *(("neuron", another_subnet_trains, optimizer) for optimizer in OPTIMIZERS if optimizer != "adam"),
        *((kind, another_subnet_trains, "adam") for kind in ("none", "layer")),
        *((kind, sampled_before_the_backward_pass, "adam") for kind in ("none", "layer", "twin")),
        *((kind, features_train, "adam") for kind in ("none", "layer", "twin")),
    ],
)
def test_evaluation_between_updates_sees_them(kind, update, optimizer):
    routing = "neuron" if kind == "twin" else kind
    model = supernet(mos_routing=routing, mos_linears="all", dropout=0.0, router_dropout=0.0).eval()
    if kind == "twin":
        model = model.get_active_subnet()
    optimizer = OPTIMIZERS[optimizer](list(model.parameters()))

    def step():
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # a gradient of zeros lets momentum move a layer

    for _ in range(3):
        update(model, step)
    fresh = copy.deepcopy(model)  # copies derive nothing before they are used
    torch.testing.assert_close(evaluate(model), evaluate(fresh), atol=1e-4, rtol=1e-4)


def test_deepcopy_is_independent(model):
    before = evaluate(model)
    twin = copy.deepcopy(model)
    close(evaluate(twin), before)
    add_to_weights(twin)
    twin.set_active_subnet(twin.search_space.smallest())
    close(evaluate(model), before)
    close(evaluate(twin), recomputed(twin))
    assert model.active_subnet == model.search_space.largest()
    mine = {id(m) for m in model.modules()}
    for layer in (*twin.encoder.layers, *twin.decoder.layers):
        held = [*layer._linears.values(), *layer._norms, *layer._max_dropouts, *layer._owners]
        assert held and not mine & {id(m) for m in held}


@pytest.mark.parametrize("routing", ["none", "neuron"])
def test_copies_after_a_change_in_evaluation(routing):
    model = supernet(mos_routing=routing, dropout=0.0).eval()
    evaluate(model), evaluate(model)
    add_to_weights(model)
    twin = copy.deepcopy(model)
    close(evaluate(twin), recomputed(model))


def test_evaluation_with_grad_gives_gradients_also_after_a_cached_one(model):
    expected = evaluate(model)
    for _ in range(2):
        model.zero_grad()
        actual = forward(model)
        close(actual, expected)
        actual.square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        assert model.encoder.layers[0].fc1.weight.grad.any()
        close(evaluate(model), expected)


def test_training_after_inference_mode(model):
    with torch.inference_mode():
        model.set_active_subnet(model.search_space.smallest())
        forward(model)
    for mode in (False, True):
        model.train(mode).zero_grad()
        forward(model).square().sum().backward()
        router = model.decoder.layers[0].router
        assert all(p.grad.any() for p in router.parameters() if p.dim() > 1)
    close(evaluate(model.eval()), recomputed(model))


def test_plain_weight_sharing_slices_once():
    model = supernet(mos_routing="none").eval()
    model.set_active_subnet(model.search_space.smallest())
    evaluate(model)
    fc1 = model.encoder.layers[0].fc1
    kept = fc1._materialized[0]
    assert kept.shape == (17, 12) and kept.data_ptr() == fc1.weight.data_ptr()  # not even copied
    evaluate(model)
    assert fc1._materialized[0] is kept
    close(evaluate(model), recomputed(model))


def test_no_grad_training_mode_is_not_cached():
    """A teacher's forward within an update must see the weights and the router's dropout of that moment."""
    model = supernet(mos_routing="layer", dropout=0.0, router_dropout=0.5).train()
    assert not torch.equal(evaluate(model), evaluate(model))
    assert model.encoder.layers[0].fc1._materialized is None


def test_an_equal_subnet_of_another_space_object_is_accepted(model):
    subnet = small_space().sample_subnet(4)
    assert subnet is not model.search_space.sample_subnet(4)
    model.set_active_subnet(subnet)
    close(evaluate(model), recomputed(model))
