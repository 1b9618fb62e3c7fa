"""Random subnets equal a naive model of the equations in ``mos_fairseq/README.md``, in padded batches."""

import pytest
import torch

from mos_fairseq.search_space import SearchSpace, Subnet
from tests.helpers import batch, supernet
from tests.models.reference import Reference, arch_encoding
from tests.spaces import ELASTIC_Q_SPACE, HEAD_DIM_SPACE, RANK_SPACE, SMALL_SPACE

SPACES = {"qkv_dim": SMALL_SPACE, "head_dim": HEAD_DIM_SPACE, "elastic_q": ELASTIC_Q_SPACE, "rank": RANK_SPACE}
NORMS = {"encoder_normalize_before": True, "decoder_normalize_before": True, "layernorm_embedding": True}
MIXTURES = [
    {"mos_routing": routing, "num_experts": experts, "mos_linears": linears, "arch_encoding": encoding}
    for routing, experts in (("layer", 2), ("neuron", 3))
    for linears in ("ffn", "attention", "all")
    for encoding in ("aggregate", "per_layer")
] + [{"mos_routing": "none", "num_experts": 2}]


def check(space: dict, options: dict, subnets: list[Subnet]) -> None:
    model = supernet(SearchSpace.from_dict(space), **options).double().eval()
    src, prev, _ = batch()
    for subnet in subnets:
        model.set_active_subnet(subnet)
        with torch.no_grad():
            actual = model(src, src.ne(1).sum(1), prev)[0]
        reference = Reference(model, subnet, space, options)
        for row, (source, target) in enumerate(zip(src, prev, strict=True)):
            expected = reference.logits(source[source.ne(1)].tolist(), target[target.ne(1)].tolist())
            torch.testing.assert_close(actual[row, : len(expected)], expected, atol=1e-5, rtol=0, msg=subnet.summary())


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda o: "-".join(map(str, o.values())))
def test_random_subnets(mixture, space):
    search_space = SearchSpace.from_dict(SPACES[space])
    seed = MIXTURES.index(mixture)
    subnets = [search_space.sample_subnet(seed, i) for i in range(2)]
    options = mixture | (NORMS if seed % 2 else {})
    check(SPACES[space], options, subnets)


@pytest.mark.parametrize(
    "options",
    [
        {"share_all_embeddings": False, "encoder_learned_pos": True, "decoder_learned_pos": True},
        {"share_all_embeddings": False, "share_decoder_input_output_embed": True, "encoder_normalize_before": True},
        {"decoder_normalize_before": True},
        {"layernorm_embedding": True},
    ],
    ids=lambda o: "-".join(o),
)
def test_options(options):
    space = SearchSpace.from_dict(SMALL_SPACE)
    options = {"mos_routing": "neuron", "num_experts": 2, "mos_linears": "all"} | options
    check(SMALL_SPACE, options, [space.largest(), space.smallest(), space.sample_subnet("options")])


@pytest.mark.parametrize("encoder_layers", [1, 3])
@pytest.mark.parametrize("span", [-1, 1, 2])
def test_cross_spans(span, encoder_layers):
    space = SearchSpace.from_dict(SMALL_SPACE)
    values = space.largest().to_dict()
    values |= {"encoder_layers": encoder_layers, "decoder_arbitrary_ende_attn": [span, 2, span]}
    check(SMALL_SPACE, {"mos_routing": "layer", "num_experts": 2, **NORMS}, [Subnet.from_dict(values)])


def test_largest_subnet_encodes_to_ones():
    space = SearchSpace.from_dict(SMALL_SPACE)
    for kind, length in (("aggregate", 10), ("per_layer", 4 + 2 * 3 + 4 * 3)):
        assert arch_encoding(space.largest(), SMALL_SPACE, kind).tolist() == [1.0] * length
        model = supernet(space, mos_routing="layer", arch_encoding=kind)
        subnet = model.sample_subnet(5)
        expected = arch_encoding(subnet, SMALL_SPACE, kind).float()
        torch.testing.assert_close(model.encoder.layers[0]._encoding, expected)
