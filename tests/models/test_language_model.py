"""The language model's largest subnet is fairseq's ``transformer_lm``; its static twin is the active subnet."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq.models.transformer_lm import TransformerLanguageModel, base_lm_architecture

from mos_fairseq.errors import InputError
from mos_fairseq.models import TransformerLanguageModelMosConfig, TransformerLanguageModelMosModel, TransformerMosModel
from mos_fairseq.search_space import SearchSpace
from tests.helpers import (
    assert_logits_and_gradients_equal,
    batch,
    decode_stepwise,
    dictionary,
    language_model,
    perturb,
    small_space,
)
from tests.models.test_stock_equality import copy_weights
from tests.spaces import LM_SPACE

DIM, HEADS, FFN, LAYERS = 24, 4, 37, 3
SPACE = SearchSpace.from_dict(LM_SPACE)


def stock_model(**options) -> TransformerLanguageModel:
    args = Namespace(
        decoder_embed_dim=DIM,
        decoder_ffn_embed_dim=FFN,
        decoder_layers=LAYERS,
        decoder_attention_heads=HEADS,
        max_target_positions=50,
        character_embeddings=False,
        **options,
    )
    base_lm_architecture(args)
    words = dictionary()
    task = SimpleNamespace(source_dictionary=words, target_dictionary=words)
    model = TransformerLanguageModel.build_model(args, task)
    perturb(model)
    return model


def ours_like_stock(**options) -> TransformerLanguageModelMosModel:
    space = SearchSpace.from_dict(LM_SPACE | {"decoder_embed_dim": [DIM, 12], "qkv_dim": DIM})
    return language_model(space, mos_routing="none", **options)


OPTIONS = [
    {"share_decoder_input_output_embed": True},
    {"share_decoder_input_output_embed": False, "layernorm_embedding": True, "activation_fn": "gelu"},
    {"share_decoder_input_output_embed": True, "decoder_learned_pos": True, "no_scale_embedding": True},
    {"share_decoder_input_output_embed": True, "no_token_positional_embeddings": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o))
def test_logits_gradients_and_incremental_decoding_equal_stock(options):
    stock, ours = stock_model(dropout=0.0, **options), ours_like_stock(dropout=0.0, **options)
    copy_weights(ours, stock)
    _, prev, target = batch()
    assert_logits_and_gradients_equal(ours, stock, (prev,), target)
    real = target.ne(1)
    with torch.no_grad():
        expected, actual = (decode_stepwise(model, None, prev) for model in (stock, ours))
    torch.testing.assert_close(actual[real], expected[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("routing", ["none", "layer", "neuron"])
def test_the_twin_is_the_active_subnet(routing):
    model = language_model(mos_routing=routing).eval()
    _, prev, target = batch()
    real = target.ne(1)
    for subnet in (SPACE.largest(), SPACE.smallest(), SPACE.sample_subnet(routing)):
        model.set_active_subnet(subnet)
        twin = model.get_active_subnet()
        assert len(twin.decoder.layers) == subnet.decoder_layers and twin.subnet == subnet
        with torch.no_grad():
            whole, active = twin(prev)[0], model(prev)[0]
            stepwise = decode_stepwise(model, None, prev)
        torch.testing.assert_close(whole[real], active[real], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(stepwise[real], active[real], atol=1e-5, rtol=1e-5)


def test_beams_are_reordered():
    """A sentence that changes places takes its cache with it."""
    model = language_model().eval()
    _, prev, _ = batch(lengths=((3, 6), (3, 6)))
    order = torch.tensor([1, 0])
    state: dict = {}
    with torch.no_grad():
        for step in range(3):
            model.decoder(prev[:, : step + 1], None, state)
        model.decoder.reorder_incremental_state_scripting(state, order)
        swapped = model.decoder(prev[order, :4], None, state)[0][:, -1]
        torch.testing.assert_close(swapped, model(prev[order, :4])[0][:, -1], atol=1e-5, rtol=1e-5)


def test_a_space_of_another_family_is_refused():
    cfg = TransformerLanguageModelMosConfig(max_target_positions=50)
    with pytest.raises(InputError, match="family encoder_decoder: --arch transformer_lm_mos takes decoder_only$"):
        TransformerLanguageModelMosModel.from_search_space(cfg, small_space(), dictionary())
    with pytest.raises(InputError, match="family decoder_only: --arch transformer_mos takes encoder_decoder$"):
        TransformerMosModel.from_search_space(cfg, SPACE, dictionary(), dictionary())
