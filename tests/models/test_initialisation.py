"""A fresh supernet's merged weights have an ordinary Transformer's spread, for any number of experts."""

import math

import pytest
import torch

from mos_fairseq.models import TransformerMosConfig, TransformerMosModel, TransformerSubnetModel
from mos_fairseq.modules import ElasticLinear, LayerRouter, NeuronRouter
from mos_fairseq.search_space import arch_encoding
from tests.helpers import batch, dictionary, small_space
from tests.seeds import moved

SPACE = small_space(
    encoder_embed_dim=[256, 128],
    decoder_embed_dim=[192, 128],
    encoder_layers=[1],
    decoder_layers=[1],
    encoder_ffn_embed_dim=[512, 256],
    decoder_ffn_embed_dim=[320, 256],
    qkv_dim=160,
)


def fresh(**options) -> TransformerMosModel:
    options |= {"share_all_embeddings": True, "max_source_positions": 50, "max_target_positions": 50}
    cfg = TransformerMosConfig(search_space=SPACE.dumps(), **options)
    torch.manual_seed(moved(11))
    return TransformerMosModel.from_search_space(cfg, SPACE, dictionary(), dictionary())


def linear_stds(model) -> dict[str, float]:
    """Standard deviation of each matrix, each of the fused ones apart."""
    groups = {"qkv_proj": 3, "kv_proj": 2}
    return {
        f"{name}.{part}": weight.std().item()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        for part, weight in enumerate(module.weight.chunk(groups.get(name.split(".")[-1], 1)))
    }


@pytest.mark.parametrize("routing", ["layer", "neuron"])
@pytest.mark.parametrize("encoding", ["aggregate", "per_layer"])
@pytest.mark.parametrize("num_experts", [1, 2, 4])
def test_merged_weights_of_a_fresh_supernet(routing, num_experts, encoding):
    model = fresh(mos_routing=routing, num_experts=num_experts, mos_linears="all", arch_encoding=encoding)
    merged = linear_stds(model.get_active_subnet())
    ordinary = linear_stds(
        TransformerSubnetModel.from_subnet(model._twin_config(), SPACE.largest(), dictionary(), dictionary())
    )
    assert merged.keys() == ordinary.keys() and len(merged) == (3 + 3) + (3 + 1 + 1 + 3 + 2)
    for name, std in ordinary.items():
        assert merged[name] == pytest.approx(std, rel=0.05), name


@pytest.mark.parametrize("routing", ["layer", "neuron"])
@pytest.mark.parametrize("blind", [False, True])
def test_experts_start_equal_and_part_where_routers_tell_subnets_apart(routing, blind):
    model = fresh(mos_routing=routing, num_experts=3, mos_linears="all").train()
    experts = [p for n, p in model.named_parameters() if n.endswith("weight") and p.dim() == 4 and p.size(0) == 3]
    assert len(experts) == (2 + 2) + (2 + 3 + 2)
    assert all(bool((p == p[:1]).all()) for p in experts)  # so the merged weight is one expert's, for any router
    if blind:  # routers that give every subnet the same mixture
        for name, parameter in model.named_parameters():
            if "router" in name and "head" in name:
                parameter.requires_grad_(False).normal_(std=float(name.endswith("bias")))
    train_largest_and_smallest(model)
    # the median over used entries: Adam also moves entries with nearly no gradient, where rounding differs
    parted = [(p - p.mean(0))[:, :, :128, :128].abs().flatten(1).median(1).values for p in experts]
    assert all(bool((p < 1e-5).all() if blind else (p > 1e-4).all()) for p in parted)


def train_largest_and_smallest(model) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    src, prev, target = batch()
    for _ in range(3):
        optimizer.zero_grad()
        for subnet in (SPACE.largest(), SPACE.smallest()):
            model.set_active_subnet(subnet)
            logits = model(src, src.ne(1).sum(1), prev)[0]
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=1).backward()
        optimizer.step()


@pytest.mark.parametrize("routing", ["layer", "neuron"])
@pytest.mark.parametrize("encoding", ["aggregate", "per_layer"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_fresh_routers_tell_subnets_apart(routing, encoding, layers):
    """Logits of largest and smallest have standard deviation 1 and, through ReLUs, little to do with each other's."""
    low = arch_encoding(SPACE.smallest(), SPACE, encoding)
    shape = {"lowest": low, "hidden_dim": 256, "num_layers": layers, "dropout": 0.1}
    high, logits = [1.0] * len(low), []
    torch.manual_seed(moved(3))
    for _ in range(400 if routing == "layer" else 4):
        if routing == "layer":
            router = LayerRouter(num_experts=4, **shape).eval()
            found = [router(torch.tensor(v)) for v in (low, high)]
        else:
            router = NeuronRouter(linear=ElasticLinear(5, 100, num_experts=4), **shape).eval()
            found = [router(torch.tensor(v), 100).flatten(1) for v in (low, high)]
        logits.append(torch.stack([(p.log() - p.log().mean(0)).flatten() for p in found]))
    logits = torch.cat(logits, dim=1) / 0.75**0.5  # softmax hides the mean over the four experts
    assert logits.std(dim=1).tolist() == pytest.approx([1, 1], rel=0.15)
    assert torch.corrcoef(logits)[0, 1].item() == pytest.approx({1: -1, 2: 0, 3: 1 / math.pi}[layers], abs=0.25)


def test_features_that_never_change_get_no_weight():
    router = LayerRouter([0.5, 1.0, 0.0], num_experts=2, hidden_dim=7, num_layers=2, dropout=0.0)
    assert router.trunk[0].weight.any(dim=0).tolist() == [True, False, True]


def test_an_ordinary_twin_is_initialised_as_fairseq_does():
    """Xavier bounds sqrt(6 / (in + out)), times 1/sqrt(2) for query, key and value; torch's 1/sqrt(in) in the FFN;
    embeddings N(0, 1/d)."""
    twin = TransformerSubnetModel.from_subnet(fresh()._twin_config(), SPACE.largest(), dictionary(), dictionary())
    cross = twin.decoder.layers[0].encoder_attn
    for weight, gain in [
        (cross.out_proj.weight, 1),
        (cross.q_proj.weight, 0.5**0.5),
        *[(part, 0.5**0.5) for part in cross.kv_proj.weight.chunk(2)],
    ]:
        bound = gain * (6 / sum(weight.shape)) ** 0.5
        assert 0.99 * bound < weight.abs().max().item() <= bound
    for weight in (twin.encoder.layers[0].fc1.weight, twin.decoder.layers[0].fc2.weight):
        bound = weight.size(1) ** -0.5
        assert 0.99 * bound < weight.abs().max().item() <= bound
    assert twin.encoder.embed_tokens.weight.std().item() == pytest.approx(256**-0.5, rel=0.05)
    assert not any(p.any() for n, p in twin.named_parameters() if n.endswith("bias"))
