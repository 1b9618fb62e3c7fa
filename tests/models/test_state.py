"""Supernet checkpoints: identity, strictness, averaging; wrong subnets."""

import copy

import pytest
import torch
from fairseq.dataclass.configs import EMAConfig
from fairseq.models.ema.ema import EMA
from omegaconf import OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.models.lasting_buffers import from_bits, to_bits
from mos_fairseq.search_space import SearchSpace, Subnet
from tests.helpers import batch, small_space, supernet
from tests.spaces import HEAD_DIM_SPACE, SMALL_SPACE

BASE = {"mos_routing": "neuron", "num_experts": 2, "mos_linears": "ffn", "arch_encoding": "aggregate"}


def logits(model) -> torch.Tensor:
    src, prev, target = batch()
    with torch.no_grad():
        return model.eval()(src, None, prev)[0][target.ne(1)]


def test_round_trip():
    model, other = supernet(seed=1, **BASE), supernet(seed=2, **BASE)
    assert not torch.allclose(logits(model), logits(other))
    state = copy.deepcopy(model.state_dict())
    other.load_state_dict(state)
    assert torch.equal(logits(model), logits(other))
    assert other.state_dict().keys() == state.keys()
    for seed in range(3):
        model.sample_subnet(seed), other.sample_subnet(seed)
        assert torch.equal(logits(model), logits(other))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mos_routing": "layer"}, ["mos_routing", "neuron", "layer"]),
        ({"num_experts": 3}, ["num_experts", "2", "3"]),
        ({"mos_linears": "all"}, ["mos_linears", "ffn", "all"]),
        ({"arch_encoding": "per_layer"}, ["arch_encoding", "aggregate", "per_layer"]),
        ({"router_hidden_dim": 64}, ["router_hidden_dim", "128", "64"]),
        ({"router_layers": 1, "num_experts": 3}, ["router_layers: 2 against 1", "num_experts: 2 against 3"]),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_another_routing_are_refused(change, words, strict):
    stored, model = supernet(**BASE).state_dict(), supernet(**BASE | change)
    before = logits(model)
    with pytest.raises(InputError) as error:
        model.load_state_dict(stored, strict=strict)
    message = str(error.value)
    assert all(word in message for word in words) and "\n" not in message
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        # equal shapes, but other choices: the routers' normaliser and the subnets differ
        (small_space(encoder_ffn_embed_dim=[33, 9]), ["encoder_ffn_embed_dim", "33, 17", "33, 9"]),
        (small_space(decoder_layers=[3, 1]), ["decoder_layers", "3, 2, 1", "3, 1"]),
        (small_space(qkv_dim=32), ["qkv_dim", "24", "32"]),
        (SearchSpace.from_dict(HEAD_DIM_SPACE), ["head_dim", "5"]),
    ],
)
def test_weights_of_another_space_are_refused(space, words):
    with pytest.raises(InputError) as error:
        supernet(space, **BASE).load_state_dict(supernet(**BASE).state_dict())
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_weights_of_no_supernet_are_refused():
    model = supernet(**BASE)
    with pytest.raises(InputError, match="supernet"):
        model.load_state_dict(model.get_active_subnet().state_dict())


@pytest.mark.parametrize(
    "name", ["encoder.layers.2.fc1.weight", "decoder.layers.0.router.fc2.head.bias", "decoder.embed_tokens.weight"]
)
def test_missing_and_unknown_weights_are_errors(name):
    model = supernet(**BASE)
    state = model.state_dict()
    value = state.pop(name)
    with pytest.raises(RuntimeError, match=name):
        model.load_state_dict(state)
    with pytest.raises(RuntimeError, match="old_name"):
        model.load_state_dict(model.state_dict() | {"old_name": value})


def test_one_expert_less_is_an_error():
    model = supernet(**BASE)
    state = model.state_dict()
    state["encoder.layers.0.fc1.weight"] = state["encoder.layers.0.fc1.weight"][:1]
    with pytest.raises(RuntimeError, match="size mismatch.*fc1.weight"):
        model.load_state_dict(state)


def test_weights_that_name_no_space_need_strict_loading_to_be_refused():
    """A part of the weights, as strict=False allows."""
    model = supernet(**BASE)
    name = "decoder.embed_tokens.weight"
    model.load_state_dict({name: torch.zeros_like(model.state_dict()[name])}, strict=False)
    assert not model.decoder.embed_tokens.weight.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_identity_survives_a_change_of_dtype(dtype):
    model = supernet(**BASE)
    before = model.identity.clone()
    twin = model.get_active_subnet()
    for each in (model, twin):
        each.to(dtype)
    assert torch.equal(model.identity.float(), before)
    supernet(seed=3, **BASE).load_state_dict(model.state_dict())
    copy.deepcopy(twin).float().load_state_dict(twin.state_dict())


def average(states: list[dict], divide) -> dict:
    """Sums that are divided, as scripts that average checkpoints do, entry by entry."""
    result = {}
    for name in states[0]:
        total = states[0][name].clone()
        for state in states[1:]:
            total += state[name]
        result[name] = divide(total, len(states))
    return result


def div_(total: torch.Tensor, n: int) -> torch.Tensor:
    """fairseq's scripts/average_checkpoints.py; HAT's and older ones do not look at the type."""
    return total.div_(n)


def interpolation(total: torch.Tensor, n: int) -> torch.Tensor:
    return total * (1 / n)


@pytest.mark.slow
@pytest.mark.parametrize("divide", [div_, interpolation])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_averages_of_checkpoints_are_models(divide, count):
    nets = [supernet(seed=seed, **BASE) for seed in range(count)]
    states = [net.state_dict() for net in nets]
    model = supernet(seed=99, **BASE)
    model.load_state_dict(average(states, divide))
    expected = torch.stack([state["encoder.layers.0.fc1.weight"] for state in states]).mean(0)
    torch.testing.assert_close(model.encoder.layers[0].fc1.weight.detach(), expected)
    assert torch.equal(model.identity, nets[0].identity)
    with pytest.raises(InputError, match="num_experts: 2 against 3"):
        supernet(**BASE | {"num_experts": 3}).load_state_dict(average(states, divide))
    twins = [net.get_active_subnet() for net in nets]
    twin = copy.deepcopy(twins[0])
    twin.load_state_dict(average([each.state_dict() for each in twins], divide))
    assert torch.equal(twin.position_dims, twins[0].position_dims)


def test_averages_over_several_spaces_are_refused():
    changes = ({}, {"router_dropout": 0.0}, {"mos_linears": "all"})
    states = [supernet(**BASE | change).state_dict() for change in changes]
    model = supernet(**BASE)
    model.load_state_dict({name: sum(state[name] for state in states[:2]) / 2 for name in states[0]})  # one space
    width = min(len(state["identity"]) for state in states)
    mixed = sum(state["identity"][:width] for state in states) / 3
    with pytest.raises(InputError, match="not of one supernet"):
        model.load_state_dict(states[0] | {"identity": mixed})
    twin = model.get_active_subnet()
    with pytest.raises(InputError, match="not of one subnet"):
        twin.load_state_dict(twin.state_dict() | {"position_dims": twin.position_dims * 0.5})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999, 0.9999, 0.99999])
def test_bits_do_not_drift_in_an_average_that_moves(dtype, decay):
    """decay * bit + (1 - decay) * bit, as fairseq's EMA does, 200 times."""
    content = bytes(range(256))
    bits = to_bits(content).to(dtype)
    moving = bits.clone()
    for _ in range(200):
        moving.mul_(decay).add_(bits, alpha=1 - decay)
    assert torch.equal(moving, bits) and from_bits(moving) == content


@pytest.mark.slow
@pytest.mark.parametrize("fp32", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["supernet", "twin"])
def test_fairseqs_ema(kind, half, fp32):
    """--store-ema and --ema-fp32: updates, and reading the state of a checkpoint again."""
    nets = [supernet(seed=seed, **BASE) for seed in (1, 2)]
    nets = nets if kind == "supernet" else [net.get_active_subnet() for net in nets]
    nets = [net.half() for net in nets] if half else nets
    model, new = nets
    name = "encoder.layers.0.fc1.bias"
    start, goal = model.state_dict()[name].float(), new.state_dict()[name].float()
    ema = EMA(model, OmegaConf.structured(EMAConfig(store_ema=True, ema_decay=0.75, ema_fp32=fp32)))
    for _ in range(3):
        ema.step(new)
    expected = 0.75**3 * start + (1 - 0.75**3) * goal
    torch.testing.assert_close(ema.get_model().state_dict()[name].float(), expected, atol=2e-3, rtol=2e-3)
    ema.restore(copy.deepcopy(ema.get_model().state_dict()), build_fp32_params=fp32)
    key = "identity" if kind == "supernet" else "position_dims"
    assert torch.equal(ema.get_model().state_dict()[key].float(), model.state_dict()[key].float())
    ema.reverse(model)
    torch.testing.assert_close(model.state_dict()[name].float(), expected, atol=2e-3, rtol=2e-3)


def test_states_hold_nothing_but_floating_point():
    """Programs that compute on weights may compute on all entries."""
    model = supernet(**BASE)
    for state in (model.state_dict(), model.get_active_subnet().state_dict()):
        assert all(value.is_floating_point() for value in state.values())


def test_identity_is_not_trained():
    assert "identity" not in dict(supernet(**BASE).named_parameters())


def outside(**changes) -> Subnet:
    """The largest subnet of a space with another choice somewhere."""
    return Subnet.from_dict(small_space().largest().to_dict() | changes)


@pytest.mark.parametrize(
    ("subnet", "words"),
    [
        (outside(encoder_embed_dim=16), ["encoder_embed_dim=16", "20, 12"]),
        (outside(decoder_ffn_embed_dim=[37, 20, 19]), ["decoder_ffn_embed_dim[1]=20", "37, 19"]),
        (outside(decoder_layers=1, qkv_dim=32), ["qkv_dim=32", "24"]),
        (SearchSpace.from_dict(HEAD_DIM_SPACE).largest(), ["qkv_dim", "24"]),
    ],
)
def test_a_foreign_subnet_is_refused_and_changes_nothing(subnet, words):
    model = supernet(**BASE)
    active = model.sample_subnet(2)
    before = logits(model)
    with pytest.raises(InputError) as error:
        model.set_active_subnet(subnet)
    assert all(word in str(error.value) for word in words)
    assert model.active_subnet is active and torch.equal(logits(model), before)


def test_an_equal_but_not_identical_subnet_is_the_same():
    model = supernet(**BASE)
    subnet = model.sample_subnet(2)
    expected = logits(model)
    model.set_active_subnet(model.search_space.largest())
    # one value too many, of an absent layer
    values = {k: v + v[-1:] if isinstance(v, list) else v for k, v in subnet.to_dict().items()}
    again = Subnet.from_dict(values)
    assert again == subnet and again is not subnet
    model.set_active_subnet(again)
    assert torch.equal(logits(model), expected)


def test_a_fresh_model_has_the_largest_subnet_and_sample_subnet_returns_the_active_one():
    model = supernet(**BASE)
    assert model.active_subnet == SearchSpace.from_dict(SMALL_SPACE).largest()
    assert model.encoder.num_active_layers == 3 and model.decoder.cross_spans == (3, 3, 3)
    drawn = model.sample_subnet("a", 1)
    assert drawn is model.active_subnet and drawn == model.search_space.sample_subnet("a", 1)


@pytest.mark.parametrize(
    ("option", "value"),
    [("num_experts", 0), ("router_hidden_dim", 0), ("router_layers", 0), ("dropout", 1.0), ("router_dropout", -0.1)],
)
def test_impossible_options_are_refused(option, value):
    with pytest.raises(InputError, match=f"{option} is {value}"):
        supernet(**{option: value})
