"""The largest subnet without mixing is a stock fairseq Transformer: same logits, gradients, incremental decoding."""

from argparse import Namespace

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy_with_alignment import (
    LabelSmoothedCrossEntropyCriterionWithAlignment,
)
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer.transformer_legacy import base_architecture
from fairseq.sequence_generator import SequenceGenerator, SequenceGeneratorWithAlignment

from tests.helpers import (
    assert_logits_and_gradients_equal,
    batch,
    decode_stepwise,
    dictionary,
    fake_task,
    perturb,
    sample_of,
    small_space,
    supernet,
)
from tests.seeds import moved

DIM, HEADS, ENCODER_FFN, DECODER_FFN, LAYERS = 24, 4, 33, 37, (3, 2)


def stock_model(**options) -> TransformerModel:
    args = Namespace(
        encoder_embed_dim=DIM,
        decoder_embed_dim=DIM,
        encoder_ffn_embed_dim=ENCODER_FFN,
        decoder_ffn_embed_dim=DECODER_FFN,
        encoder_layers=LAYERS[0],
        decoder_layers=LAYERS[1],
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        max_source_positions=50,
        max_target_positions=50,
        **options,
    )
    base_architecture(args)
    torch.manual_seed(moved(5))
    model = TransformerModel.build_model(args, fake_task())
    perturb(model)
    return model


def our_model(experts_of_one: bool, **options):
    """A supernet whose largest subnet has the stock model's sizes; the smaller choices must not matter."""
    space = small_space(
        encoder_embed_dim=[DIM, 12],
        decoder_embed_dim=[DIM, 12],
        encoder_layers=[LAYERS[0], 1],
        decoder_layers=[LAYERS[1], 1],
        encoder_attention_heads=[HEADS, 2],
        decoder_attention_heads=[HEADS, 2],
        decoder_ende_attention_heads=[HEADS, 2],
        decoder_arbitrary_ende_attn=[-1],
        qkv_dim=DIM,
    )
    routing = {"mos_routing": "neuron", "num_experts": 1} if experts_of_one else {"mos_routing": "none"}
    return supernet(space, **routing, **options)


@torch.no_grad()
def copy_weights(ours, stock) -> None:
    """Stock weights into the supernet: query, key and value are fused, experts are stacked."""
    state = stock.state_dict()
    used = set()

    def take(name: str) -> torch.Tensor:
        used.add(name)
        return state[name]

    for name, parameter in ours.named_parameters():
        prefix, _, leaf = name.rpartition(".")
        parent, _, module = prefix.rpartition(".")
        fused = {"qkv_proj": "qkv", "q_proj": "q", "kv_proj": "kv"}.get(module)
        if fused:
            value = torch.stack([take(f"{parent}.{part}_proj.{leaf}") for part in fused])[None]
        elif module == "output_embedding":
            value = take(f"{parent}.output_projection.{leaf}")
        else:
            value = take(name)
            if parameter.dim() > value.dim():
                value = value[None, None]
        assert parameter.shape == value.shape, name
        parameter.copy_(value)
    shared = {n for n in state if n.endswith(("embed_tokens.weight", "output_projection.weight"))}
    left = set(state) - used - shared - {"encoder.version", "decoder.version"}
    assert not [n for n in left if "_float_tensor" not in n], left


OPTIONS = [
    {"share_all_embeddings": True},
    {"share_all_embeddings": True, "encoder_normalize_before": True, "decoder_normalize_before": True},
    {"share_all_embeddings": False, "share_decoder_input_output_embed": True, "layernorm_embedding": True},
    {"share_all_embeddings": False, "encoder_learned_pos": True, "decoder_learned_pos": True},
    {"share_all_embeddings": False, "no_scale_embedding": True, "activation_fn": "gelu"},
    {"share_all_embeddings": True, "no_token_positional_embeddings": True},
]


@pytest.mark.parametrize("experts_of_one", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o))
def test_logits_and_gradients_equal_stock(options, experts_of_one):
    stock, ours = stock_model(dropout=0.0, **options), our_model(experts_of_one, dropout=0.0, **options)
    copy_weights(ours, stock)
    src, prev, target = batch()
    assert_logits_and_gradients_equal(ours, stock, (src, src.ne(1).sum(1), prev), target)


@pytest.mark.parametrize("options", OPTIONS[:4], ids=lambda o: "-".join(o))
def test_incremental_decoding_equals_stock(options):
    stock, ours = stock_model(**options).eval(), our_model(False, **options).eval()
    copy_weights(ours, stock)
    src, prev, target = batch()
    with torch.no_grad():
        expected = decode_stepwise(stock, stock.encoder(src, src.ne(1).sum(1)), prev)
        actual = decode_stepwise(ours, ours.encoder(src, src.ne(1).sum(1)), prev)
    real = target.ne(1)
    torch.testing.assert_close(actual[real], expected[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_attention_weights_equal_stock(training):
    """Attention of the last layer for every caller, and of another layer and fewer heads."""
    options = {"share_all_embeddings": True, "dropout": 0.0}
    stock, ours = stock_model(**options).train(training), our_model(False, **options).train(training)
    copy_weights(ours, stock)
    src, prev, target = batch()
    real = target.ne(1)
    for more in ({}, {"alignment_layer": 0, "alignment_heads": 2}):
        expected = stock(src, src.ne(1).sum(1), prev, **more)[1]["attn"][0]
        (actual,) = ours(src, None, prev, **more)[1]["attn"]
        torch.testing.assert_close(actual[real], expected[real], atol=1e-6, rtol=1e-5)


def test_guided_alignment_equals_stock():
    """fairseq's criterion of --load-alignments: its loss, and the gradient through the attention."""
    options = {"share_all_embeddings": True, "dropout": 0.0}
    stock, ours = stock_model(**options), our_model(False, **options)
    copy_weights(ours, stock)
    sample = sample_of(*batch(left_pad_source=False))
    pairs = torch.tensor([[0, 1], [3, 0], [2, 4], [1, 3], [2, 12]])  # source position, row of the target
    sample |= {"alignments": pairs, "align_weights": torch.tensor([1.0, 0.5, 1.0, 1.0, 0.3])}
    criterion = LabelSmoothedCrossEntropyCriterionWithAlignment(fake_task(), False, 0.1, 0.7)
    expected, actual = criterion(stock, sample), criterion(ours, sample)
    assert actual[2]["alignment_loss"] == pytest.approx(expected[2]["alignment_loss"], rel=1e-5)
    torch.testing.assert_close(actual[0], expected[0])
    expected[0].backward(), actual[0].backward()
    mine = dict(ours.named_parameters())["decoder.layers.1.encoder_attn.q_proj.weight"].grad
    theirs = stock.decoder.layers[1].encoder_attn.q_proj.weight.grad
    torch.testing.assert_close(mine.view_as(theirs), theirs, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_attention_and_alignments_of_search_equal_stock():
    stock, ours = stock_model(share_all_embeddings=True).eval(), our_model(False).eval()
    copy_weights(ours, stock)
    sample, words, limits = sample_of(*batch()), dictionary(), {"beam_size": 3, "max_len_b": 6, "min_len": 6}
    found = {}
    for name, model in (("stock", stock), ("ours", ours)):
        plain = SequenceGenerator([model], words, **limits).generate([model], sample)
        hard = SequenceGeneratorWithAlignment([model], words, **limits).generate([model], sample)
        soft = SequenceGeneratorWithAlignment([model], words, print_alignment="soft", **limits)
        found[name] = list(zip(plain, hard, soft.generate([model], sample), strict=True))
    for theirs, mine in zip(found["stock"], found["ours"], strict=True):
        for k in range(3):
            assert [h[k]["tokens"].tolist() for h in mine] == [h[k]["tokens"].tolist() for h in theirs]
            for kind in range(3):
                expected, actual = theirs[kind][k], mine[kind][k]
                torch.testing.assert_close(actual["attention"], expected["attention"], atol=1e-5, rtol=1e-4)
            assert mine[1][k]["alignment"] == theirs[1][k]["alignment"] and mine[1][k]["alignment"]
    assert found["ours"][0][0][0]["attention"].shape == (7, 7)  # source tokens, six words and the end


@torch.no_grad()
def test_search_need_not_compute_attention():
    ours, words, sample = our_model(False).eval(), dictionary(), sample_of(*batch())
    with_attention = SequenceGenerator([ours], words, max_len_b=6).generate([ours], sample)
    ours.decoder.need_attn = False
    without = SequenceGenerator([ours], words, max_len_b=6).generate([ours], sample)
    for one, other in zip(with_attention, without, strict=True):
        assert [h["tokens"].tolist() for h in one] == [h["tokens"].tolist() for h in other]
        assert all(h["attention"].numel() for h in one) and not any(h["attention"].numel() for h in other)
    src, prev, _ = batch()
    assert ours(src, None, prev)[1]["attn"][0].shape == (*prev.shape, src.size(1))  # costs nothing until it is read


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_full_context_equals_stock(padded):
    """A position reads those after it, but no padding."""
    stock, ours = stock_model(share_all_embeddings=True).eval(), our_model(False).eval()
    copy_weights(ours, stock)
    src, prev, target = batch() if padded else batch(lengths=((5, 6), (5, 6)))
    assert bool(target.eq(1).any()) == padded
    expected = stock.decoder(prev, stock.encoder(src, src.ne(1).sum(1)), full_context_alignment=True)
    actual = ours.decoder(prev, ours.encoder(src, None), full_context_alignment=True)
    torch.testing.assert_close(actual[0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(actual[1]["attn"][0], expected[1]["attn"][0], atol=1e-6, rtol=1e-5)


def test_left_padded_targets_equal_unpadded_ones():
    ours = our_model(False).eval()
    src, prev, _ = batch(lengths=((5, 6),))
    padded = torch.cat([torch.full((1, 2), 1), prev], dim=1)
    with torch.no_grad():
        alone, left = ours(src, None, prev)[0], ours(src, None, padded)[0]
    torch.testing.assert_close(left[:, 2:], alone, atol=1e-5, rtol=1e-5)


def test_vocabulary_of_the_tests_is_what_batches_assume():
    assert len(dictionary()) == 31
