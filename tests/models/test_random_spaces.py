"""Properties of supernets over random search spaces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mos_fairseq.search_space import SearchSpace
from tests.helpers import batch, decode_stepwise, supernet


def some(*values: int):
    return st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)


@st.composite
def spaces(draw) -> SearchSpace:
    width = draw(st.sampled_from([{"qkv_dim": 12}, {"qkv_dim": 24}, {"head_dim": 3}, {"head_dim": 6}]))
    heads = some(1, 2, 3, 4)
    return SearchSpace.from_dict(
        {
            "encoder_embed_dim": draw(some(6, 10, 14)),
            "decoder_embed_dim": draw(some(6, 8, 18)),
            "encoder_layers": draw(some(1, 2, 3)),
            "decoder_layers": draw(some(1, 2, 3)),
            "encoder_ffn_embed_dim": draw(some(5, 9, 21)),
            "encoder_attention_heads": draw(heads),
            "decoder_ffn_embed_dim": draw(some(7, 11, 13)),
            "decoder_attention_heads": draw(heads),
            "decoder_ende_attention_heads": draw(heads),
            "decoder_arbitrary_ende_attn": draw(some(-1, 1, 2)),
        }
        | width
    )


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    space=spaces(),
    routing=st.sampled_from(["none", "layer", "neuron"]),
    linears=st.sampled_from(["ffn", "attention", "all"]),
    encoding=st.sampled_from(["aggregate", "per_layer"]),
    shared=st.booleans(),
    experts=st.integers(1, 3),
)
def test_any_subnet_equals_its_twin_and_decodes_step_by_step(space, routing, linears, encoding, shared, experts):
    model = supernet(
        space,
        mos_routing=routing,
        mos_linears=linears,
        arch_encoding=encoding,
        num_experts=experts,
        share_all_embeddings=shared,
    ).eval()
    src, prev, target = batch()
    real = target.ne(1)
    for subnet in (space.largest(), space.smallest(), space.sample_subnet("property")):
        model.set_active_subnet(subnet)
        with torch.no_grad():
            active = model(src, None, prev)[0]
            twin = model.get_active_subnet()
            steps = decode_stepwise(model, model.encoder(src), prev)
            torch.testing.assert_close(twin(src, None, prev)[0], active, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(steps[real], active[real], atol=1e-5, rtol=1e-5)
        assert twin.subnet == subnet == model.active_subnet


@pytest.mark.parametrize("routing", ["none", "layer", "neuron"])
def test_every_parameter_learns_in_some_subnet(routing):
    """After the largest subnet's backward pass no parameter is without a gradient: nothing is built in vain."""
    model = supernet(mos_routing=routing, mos_linears="all", share_all_embeddings=False)
    src, prev, target = batch()
    torch.nn.functional.cross_entropy(model(src, None, prev)[0].transpose(1, 2), target, ignore_index=1).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
