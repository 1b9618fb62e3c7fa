"""A supernet's units in another order: the same largest subnet, moments that follow, and a way back."""

import copy
from pathlib import Path

import pytest
import torch

from mos_fairseq.cli.warm_start import main
from mos_fairseq.errors import InputError
from mos_fairseq.models.trained_parts import train_experts
from mos_fairseq.modules.factored_linear import writer
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.warm_start import Orders, moves_of, reordered, supernet_orders
from tests.helpers import batch, language_model, masked_language_model, sample_of, supernet
from tests.seeds import moved
from tests.spaces import HEAD_DIM_SPACE, RANK_SPACE

GOLDEN = Path(__file__).parents[1] / "golden"
SPACES = {
    "translation": lambda **options: supernet(SearchSpace.from_dict(HEAD_DIM_SPACE), router_hidden_dim=9, **options),
    "rank": lambda **options: supernet(SearchSpace.from_dict(RANK_SPACE), router_hidden_dim=9, **options),
    "language model": lambda **options: language_model(router_hidden_dim=9, **options),
    "masked": lambda **options: masked_language_model(router_hidden_dim=9, **options),
}
ROUTINGS = [
    {"mos_routing": "neuron", "mos_linears": "all", "num_experts": 3},
    {"mos_routing": "layer", "mos_linears": "all", "num_experts": 2},
    {"mos_routing": "none"},
    {"mos_routing": "neuron", "mos_linears": "all", "num_experts": 2, "expert_rank": 3},
    {"mos_routing": "rank", "mos_linears": "all", "num_experts": 2, "expert_rank": 3},
]


def trained(model) -> dict:
    """A checkpoint of ``model`` with moments of adam's form that tell each number's place, but for one parameter that
    never had a gradient; with an average; and something else."""
    generator = torch.Generator().manual_seed(moved(3))
    state = {}
    for index, p in enumerate(model.parameters()):
        moment = torch.rand(p.shape, generator=generator, dtype=p.dtype)
        state[index] = {"step": 7, "exp_avg": p.detach() * 2, "exp_avg_sq": moment}
    del state[0]
    groups = [{"lr": 0.1, "params": list(range(len(list(model.parameters()))))}]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    averages = {"ema": {name: value.clone() for name, value in weights.items()}}
    return {
        "model": weights,
        "last_optimizer_state": {"state": state, "param_groups": groups},
        "extra_state": averages | {"best": 3.0},
    }


def random_orders(model, seed: int = 5) -> Orders:
    generator = torch.Generator().manual_seed(moved(seed))
    ffn, heads = {}, {}
    for stack in model.stacks():
        for index, layer in enumerate(stack.layers):
            place = stack.stack.name, index
            ffn[place] = torch.randperm(writer(layer.fc1).max_out_features, generator=generator)
            for block in stack.stack.attentions:
                heads[(*place, block.name)] = torch.randperm(getattr(layer, block.name).num_heads, generator=generator)
    return Orders(ffn=ffn, heads=heads)


def inverse(orders: Orders) -> Orders:
    return Orders(
        ffn={key: torch.argsort(order) for key, order in orders.ffn.items()},
        heads={key: torch.argsort(order) for key, order in orders.heads.items()},
    )


def logits(model) -> torch.Tensor:
    sample = sample_of(*batch())["net_input"]
    if model.family.name != "encoder_decoder":
        sample = {"src_tokens": sample["src_tokens"].flip(1), "src_lengths": sample["src_lengths"]}
    return model(**sample)[0]


@pytest.mark.parametrize(
    ("kind", "routing"),
    [
        *(("translation", routing) for routing in ROUTINGS),
        ("language model", ROUTINGS[0]),
        ("masked", ROUTINGS[0]),
        ("rank", ROUTINGS[0]),
    ],
)
def test_the_largest_stays_and_the_way_back_is_exact(kind, routing, monkeypatch):
    """In double precision throughout: routers' probabilities, in fp32 otherwise, round by where a neuron stands."""
    model = SPACES[kind](**routing).double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("low_rank.up"):  # zeros at the start
            torch.nn.init.uniform_(parameter, -1, 1)
    state = trained(model)
    kept = copy.deepcopy(state)
    orders = random_orders(model)
    changed = reordered(state, model, moves_of(model, orders))
    other = SPACES[kind](**routing).double().eval()
    other.load_state_dict(changed["model"])
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "float", lambda tensor: tensor)
        real = logits(model).abs().max()
        torch.testing.assert_close(logits(other), logits(model), atol=1e-10 * float(real), rtol=0)
        for each in (model, other):
            each.set_active_subnet(each.search_space.smallest())
        assert not torch.allclose(logits(other), logits(model), atol=1e-4)  # it has other neurons
        model.set_active_subnet(model.search_space.largest())
    # moments follow their weights: the first is twice the weight, at whatever place
    moments = changed["last_optimizer_state"]["state"]
    for index, (name, _) in enumerate(model.named_parameters()):
        assert not index or torch.equal(moments[index]["exp_avg"], changed["model"][name] * 2)
        assert torch.equal(changed["extra_state"]["ema"][name], changed["model"][name])
    back = reordered(changed, model, moves_of(model, inverse(orders)))
    for given, found in ((kept, state), (kept, back)):  # what was given is left alone
        assert all(torch.equal(value, found["model"][name]) for name, value in given["model"].items())
        for index, kinds in given["last_optimizer_state"]["state"].items():
            assert kinds["step"] == 7
            for key in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(kinds[key], found["last_optimizer_state"]["state"][index][key])
    assert back["extra_state"]["best"] == 3.0 and changed["extra_state"]["best"] == 3.0


@pytest.mark.parametrize("by_gradient", [False, True])
def test_what_does_nothing_comes_last(by_gradient):
    """Of each feed-forward part the first neurons, and the first head, say nothing that is read; all others do."""
    model = SPACES["translation"](activation_fn="gelu", **ROUTINGS[0]).eval()
    with torch.no_grad():
        for stack in model.stacks():
            for layer in stack.layers:
                layer.fc2.weight[..., :9] = 0
                layer.self_attn.out_proj.weight[..., :5] = 0  # heads are 5 wide
    batches = [sample_of(*batch())] if by_gradient else None
    orders = supernet_orders(model.get_active_subnet(), batches)
    assert len(orders.ffn) == 6 and len(orders.heads) == 9
    for order in orders.ffn.values():
        assert set(order[-9:].tolist()) == set(range(9))
    for (*_, name), order in orders.heads.items():
        assert name != "self_attn" or order[-1] == 0


def test_scaled_adams_sizes_stay_with_their_experts():
    model = SPACES["translation"](**ROUTINGS[0])
    state = trained(model)
    shapes = {i: p.shape for i, p in enumerate(model.parameters())}
    sizes = {i: torch.rand(shape[0], *[1] * (len(shape) - 1)) for i, shape in shapes.items()}
    for index, kept in state["last_optimizer_state"]["state"].items():
        kept |= {"rms": sizes[index], "scale_grads": sizes[index].expand(4, *sizes[index].shape).clone()}
    changed = reordered(state, model, moves_of(model, random_orders(model)))["last_optimizer_state"]["state"]
    assert all(torch.equal(kept["rms"], sizes[index]) for index, kept in changed.items())


def test_the_moments_of_a_frozen_supernet_move():
    """Its optimizer keeps experts and routers only."""
    options = {"mos_routing": "rank", "expert_rank": 2, "freeze_shared": True}
    model = SPACES["translation"](**options)
    train_experts(model)
    state = trained(model)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    moments = {i: {"exp_avg": dict(model.named_parameters())[name].detach() * 2} for i, name in enumerate(names)}
    state["last_optimizer_state"] = {"state": moments, "param_groups": [{"params": list(range(len(names)))}]}
    changed = reordered(state, model, moves_of(model, random_orders(model)))
    assert any("low_rank.up" in name for name in names) and not any("fc1.weight" in name for name in names)
    for index, name in enumerate(names):
        assert torch.equal(changed["last_optimizer_state"]["state"][index]["exp_avg"], changed["model"][name] * 2)
    assert not torch.equal(
        changed["model"]["encoder.layers.0.fc1.weight"], state["model"]["encoder.layers.0.fc1.weight"]
    )


def test_states_without_a_place_for_each_unit_are_refused():
    model = SPACES["language model"](**ROUTINGS[2])
    moves = moves_of(model, random_orders(model))
    state = trained(model)
    del state["last_optimizer_state"]
    assert "last_optimizer_state" not in reordered(state, model, moves)
    flat = trained(model)
    flat["last_optimizer_state"]["param_groups"][0]["params"] = [0]
    with pytest.raises(InputError, match="keeps 1 tensors.*--fp16-no-flatten-grads"):
        reordered(flat, model, moves)
    rows = trained(model)
    for kept in rows["last_optimizer_state"]["state"].values():
        kept["exp_avg_sq_row"] = kept.pop("exp_avg_sq").mean(-1)
    with pytest.raises(InputError, match="keeps exp_avg_sq_row of"):
        reordered(rows, model, moves)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--path", "none.pt", "--reorder"], "checkpoint none.pt: no such file"),
        (["--path", str(GOLDEN / "twin.pt"), "--reorder"], "its arch is transformer_subnet, but only supernets"),
        (["--reorder", "--no-reorder"], "no_reorder is True: it has no effect with --reorder"),
        (["--reorder", "--num-experts", "3"], "num_experts is 3: it has no effect with --reorder"),
        (["--reorder", "--search-space", "tiny"], "search_space is tiny: it has no effect with --reorder"),
        ([], "search_space is not given"),
    ],
)
def test_bad_input(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        main(["--path", str(GOLDEN / "supernet.pt"), "--output", str(tmp_path / "out.pt"), *options])
    assert not (tmp_path / "out.pt").exists()


def test_a_checkpoint_of_before(tmp_path, capsys):
    """It has a fixed ``qkv_dim``: its heads stay."""
    main(["--path", str(GOLDEN / "supernet.pt"), "--output", str(tmp_path / "out.pt"), "--reorder"])
    assert "neurons (heads share one width, and stay) by importance" in capsys.readouterr().out
    before, after = (torch.load(path, weights_only=False) for path in (GOLDEN / "supernet.pt", tmp_path / "out.pt"))
    moved_ones = {name for name, value in before["model"].items() if not torch.equal(value, after["model"][name])}
    assert moved_ones and all(".fc1" in name or ".fc2" in name or "router.fc1.head" in name for name in moved_ones)
