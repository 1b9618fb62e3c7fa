"""Training a subnet moves its own slice, its experts and its routers, and nothing else."""

import pytest
import torch

from mos_fairseq.modules import kernels
from mos_fairseq.search_space import SearchSpace
from tests.helpers import batch, supernet
from tests.seeds import moved
from tests.spaces import HEAD_DIM_SPACE, RANK_SPACE, SMALL_SPACE

LEARNED = {"encoder_learned_pos": True, "decoder_learned_pos": True, "layernorm_embedding": True}
UNSHARED = {"share_all_embeddings": False, "encoder_normalize_before": True, "decoder_normalize_before": True}
CASES = [
    (SMALL_SPACE, {"mos_routing": "none", **UNSHARED}),
    (SMALL_SPACE, {"mos_routing": "neuron", "num_experts": 3, "mos_linears": "ffn", **LEARNED}),
    (SMALL_SPACE, {"mos_routing": "layer", "mos_linears": "all", **LEARNED}),
    (HEAD_DIM_SPACE, {"mos_routing": "neuron", "mos_linears": "all", **UNSHARED, **LEARNED}),
    (HEAD_DIM_SPACE, {"mos_routing": "layer", "mos_linears": "attention"}),
    (RANK_SPACE, {"mos_routing": "neuron", "mos_linears": "ffn"}),
]


@pytest.fixture(autouse=True, params=["merged weights are held", "made again", "torch"])
def kernels_in_use(request, use_kernels):
    if request.param == "torch":
        use_kernels(**vars(kernels.TORCH))
    else:
        use_kernels(remade_mixture=1 if request.param == "made again" else kernels.NEVER)


def small_subnet(space: SearchSpace):
    """Fewer layers and smaller sizes than the largest, but not in every layer the smallest."""
    return next(
        s
        for s in (space.sample_subnet("gradients", i) for i in range(1000))
        if (s.encoder_layers, s.decoder_layers, s.encoder_embed_dim, s.decoder_embed_dim) == (1, 2, 12, 14)
        and s.decoder_attention_heads[0] == 2
        and s.encoder_attention_heads[0] == 2
        and s.decoder_ffn_embed_dim == (19, 37)
    )


def loss_of(model, scale: float = 1.0) -> torch.Tensor:
    src, prev, target = batch()
    logits, real = model(src, None, prev)[0], target.ne(1)
    return scale * torch.nn.functional.cross_entropy(logits[real], target[real])


def active_slice(name: str, subnet) -> tuple[slice, ...] | None:
    """Return the part of a parameter that the subnet uses: slices of its last axes; None if unused."""
    parts = name.split(".")
    side = parts[0]
    dims = {"encoder": subnet.encoder_embed_dim, "decoder": subnet.decoder_embed_dim}
    if "layers" not in parts:
        width = dims[side]
        return (slice(width),)
    index = int(parts[2])
    if index >= getattr(subnet, f"{side}_layers"):
        return None
    ffn = getattr(subnet, f"{side}_ffn_embed_dim")[index]
    heads_key = "decoder_ende_attention_heads" if "encoder_attn" in name else f"{side}_attention_heads"
    q_size = subnet.qkv_dim or subnet.head_dim * getattr(subnet, heads_key)[index]
    outer = dims[side]
    rank = getattr(subnet, f"{side}_ffn_rank", None) or (0,) * (index + 1)
    sizes = {  # of linears by name: (rows, columns)
        "fc1.down": (rank[index], outer),
        "fc1.up": (ffn, rank[index]),
        "fc2.down": (rank[index], ffn),
        "fc2.up": (outer, rank[index]),
        "fc1": (ffn, outer),
        "fc2": (outer, ffn),
        "out_proj": (outer, q_size),
        "q_proj": (q_size, outer),
        "qkv_proj": (q_size, outer),
        "kv_proj": (q_size, subnet.encoder_embed_dim),
    }
    if "router" in parts:
        if "trunk" in parts or parts[4] == "head":  # shared by all sizes
            return (slice(None),)
        rows = slice(sizes[next(s for s in sizes if parts[4].endswith(s.replace(".", "_")))][0])
        return (rows, slice(None)) if parts[-1] == "weight" else (rows,)
    if "norm" in parts[-2]:
        return (slice(outer),)
    rows, columns = sizes[".".join(parts[3:5]) if parts[4] in ("up", "down") else parts[-2]]
    return (slice(rows), slice(columns)) if parts[-1] == "weight" else (slice(rows),)


@pytest.mark.parametrize(("space", "options"), CASES, ids=lambda o: o.get("mos_routing", ""))
def test_gradients_outside_the_active_slice_are_zero(space, options):
    space = SearchSpace.from_dict(space)
    subnet = small_subnet(space)
    model = supernet(space, dropout=0.0, activation_fn="gelu", **options).train()  # relu has dead neurons
    model.set_active_subnet(subnet)
    loss_of(model).backward()
    checked = set()
    for name, parameter in model.named_parameters():
        wanted = active_slice(name, subnet)
        if "embed_tokens" in name and options.get("share_all_embeddings", True):
            wanted = (slice(max(subnet.encoder_embed_dim, subnet.decoder_embed_dim)),)
        if wanted is None:
            assert parameter.grad is None, name
            continue
        outside = parameter.grad.clone()
        inside = outside[(..., *wanted)]
        assert inside.any(), f"{name}: the active slice learns nothing"
        if name.endswith("weight") and inside.dim() > 1 and "router" not in name:
            assert inside.flatten(0, -2).any(0).all(), f"{name}: a column learns nothing"
        outside[(..., *wanted)] = 0
        assert not outside.any(), f"{name}: learns outside the active slice"
        checked.add(name)
    assert any("router" in name for name in checked) == (options["mos_routing"] != "none")


@pytest.mark.slow
@pytest.mark.parametrize("routing", ["none", "layer", "neuron"])
def test_accumulated_gradients_are_the_sum_of_separate_ones(routing):
    """The sandwich rule backs up through several subnets before an optimiser step."""
    model = supernet(mos_routing=routing, mos_linears="all", dropout=0.0, router_dropout=0.0).train()
    space = model.search_space
    subnets = [space.largest(), space.sample_subnet("sum"), space.smallest()]
    expected: dict[str, torch.Tensor] = {}
    for scale, subnet in enumerate(subnets, start=1):
        model.zero_grad()
        model.set_active_subnet(subnet)
        loss_of(model, scale).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected.get(name, 0) + parameter.grad
    model.zero_grad()
    for scale, subnet in enumerate(subnets, start=1):
        model.set_active_subnet(subnet)
        loss_of(model, scale).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_graph_survives_the_next_choice_of_a_subnet():
    """Forward of two subnets before the backward of either (as in distillation) gives each its own gradients."""
    model = supernet(mos_routing="neuron", dropout=0.0, router_dropout=0.0).train()
    space = model.search_space

    def gradients(together: bool) -> list[torch.Tensor]:
        model.zero_grad()
        losses = []
        for subnet in (space.smallest(), space.largest()):
            model.set_active_subnet(subnet)
            losses.append(loss_of(model))
            if not together:
                losses.pop().backward()
        if losses:
            sum(losses).backward()
        return [p.grad for p in model.parameters()]

    torch.testing.assert_close(gradients(True), gradients(False), atol=1e-5, rtol=1e-4)


def test_parameter_gradients_equal_finite_differences():
    """Router, expert, norm and embedding gradients of a small subnet, in float64."""
    model = supernet(mos_routing="neuron", mos_linears="all", router_hidden_dim=7, activation_fn="gelu").double().eval()
    model.set_active_subnet(small_subnet(model.search_space))
    loss_of(model).backward()
    torch.manual_seed(moved(0))
    for name in (
        "encoder.layers.0.router.fc1.head.weight",
        "encoder.layers.0.router.self_attn_qkv_proj.trunk.0.weight",
        "encoder.layers.0.fc1.weight",
        "decoder.layers.1.encoder_attn.kv_proj.weight",
        "decoder.layers.0.encoder_attn_layer_norm.weight",
        "encoder.embed_tokens.weight",
    ):
        parameter = model.get_parameter(name)
        direction = torch.randn_like(parameter)
        values = []
        with torch.no_grad():
            for step in (1e-3, -2e-3):
                parameter.add_(direction, alpha=step)
                values.append(loss_of(model).item())
            parameter.add_(direction, alpha=1e-3)
        # the routers' softmax is fp32, which limits how exact a difference can be
        expected = (parameter.grad * direction).sum().item()
        assert (values[0] - values[1]) / 2e-3 == pytest.approx(expected, rel=2e-2, abs=1e-3), name
