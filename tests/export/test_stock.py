"""A twin written as fairseq's own transformer computes the same, and a twin that cannot be written is refused."""

import io
from argparse import Namespace

import pytest
import torch
from fairseq.models import build_model
from fairseq.models.roberta import RobertaModel
from fairseq.models.transformer import TransformerModel
from omegaconf import OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.export import stock, stock_checkpoint
from mos_fairseq.export.check import ExportError
from mos_fairseq.search_space import SearchSpace, Subnet
from tests.helpers import batch, decode_stepwise, fake_task, language_model, masked_language_model, supernet
from tests.spaces import BOTTLENECK_SPACE, FACTORISED_SPACE, HEAD_DIM_SPACE, LM_SPACE

STATE = {
    "cfg": {
        "task": {"_name": "translation_mos", "data": "somewhere", "search_space": "x"},
        "criterion": {"_name": "label_smoothed_cross_entropy_mos", "label_smoothing": 0.1},
    },
    "optimizer_history": [{"num_updates": 7}],
}
# widths that heads of 6 and 4 fill
SPACE = HEAD_DIM_SPACE | {
    "encoder_embed_dim": [24, 12],
    "decoder_embed_dim": [30, 24, 12],
    "encoder_attention_heads": [4, 2],
    "decoder_attention_heads": [5, 4, 2],
    "decoder_ende_attention_heads": [5, 4, 2],
    "head_dim": 6,
}
EQUAL = {
    "encoder_embed_dim": 12,
    "decoder_embed_dim": 12,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_ffn_embed_dim": 17,
    "encoder_attention_heads": 2,
    "decoder_ffn_embed_dim": 37,
    "decoder_attention_heads": 2,
    "decoder_ende_attention_heads": 2,
    "decoder_arbitrary_ende_attn": -1,
    "head_dim": 6,
}
UNEQUAL = EQUAL | {
    "encoder_embed_dim": 24,
    "decoder_embed_dim": 30,
    "encoder_ffn_embed_dim": [33, 17, 33],
    "encoder_attention_heads": [4, 2, 4],
    "decoder_ffn_embed_dim": [19, 37],
    "decoder_attention_heads": [4, 2],
    "decoder_ende_attention_heads": [2, 5],
}
OPTIONS = [
    {"share_all_embeddings": True},
    {"share_all_embeddings": False, "share_decoder_input_output_embed": True, "encoder_normalize_before": True},
    {"share_all_embeddings": False, "decoder_learned_pos": True, "layernorm_embedding": True},
    {"share_all_embeddings": True, "no_token_positional_embeddings": True, "decoder_normalize_before": True},
]


def twin_of(subnet: dict, space: dict = SPACE, **options):
    model = supernet(SearchSpace.from_dict(space), mos_routing="neuron", **options)
    model.set_active_subnet(Subnet.from_dict(subnet))
    return model.get_active_subnet()


def rebuilt(checkpoint: dict) -> TransformerModel:
    """The model that fairseq builds of a checkpoint."""
    model = TransformerModel.build_model(Namespace(**checkpoint["cfg"]["model"]), fake_task())
    model.load_state_dict(checkpoint["model"])
    return model.eval()


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o))
@pytest.mark.parametrize(
    "subnet",
    [
        EQUAL,
        EQUAL | {"decoder_embed_dim": 24, "decoder_attention_heads": 4, "decoder_ende_attention_heads": 4},
        UNEQUAL,
    ],
    ids=["equal", "sides", "padded"],
)
@torch.no_grad()
def test_same_logits(subnet, options):
    twin = twin_of(subnet, **options)
    made = rebuilt(stock_checkpoint(STATE, twin, allow_padding=subnet is UNEQUAL))
    src, prev, target = batch()
    real, lengths = target.ne(1), src.ne(1).sum(1)
    expected = twin(src, lengths, prev)[0]
    torch.testing.assert_close(made(src, lengths, prev)[0][real], expected[real], atol=1e-5, rtol=1e-5)
    stepwise = decode_stepwise(made, made.encoder(src, lengths), prev)
    torch.testing.assert_close(stepwise[real], expected[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("criterion", "task"),
    [
        ({}, "translation_mos"),
        ({"_name": "distillation_mos", "distillation": "alpha", "alpha_clip": 5.0}, "translation_mos"),
        ({}, "translation"),  # fairseq's own, with this package's criterion
    ],
)
def test_configuration_is_stock_fairseqs(criterion, task):
    cfg = STATE["cfg"] | {"criterion": STATE["cfg"]["criterion"] | criterion}
    cfg["task"] = cfg["task"] | {"_name": task}
    checkpoint = stock_checkpoint(STATE | {"cfg": cfg}, twin_of(EQUAL))
    assert checkpoint["cfg"]["model"]["arch"] == "transformer"
    assert checkpoint["cfg"]["task"] == {"_name": "translation", "data": "somewhere"}
    assert checkpoint["cfg"]["criterion"] == {"_name": "label_smoothed_cross_entropy", "label_smoothing": 0.1}
    assert checkpoint["optimizer_history"][-1]["num_updates"] == 7


def test_options_are_attributes_too():
    """As in fairseq's own namespace, but in a form that torch's safe reader supports."""
    file, cfg = io.BytesIO(), STATE["cfg"] | {"optimizer": Namespace(_name="sgd", momentum=0.5)}
    torch.save(stock_checkpoint(STATE | {"cfg": cfg}, twin_of(EQUAL)), file)
    file.seek(0)
    allowed = torch.serialization.get_safe_globals()  # by this package
    torch.serialization.clear_safe_globals()
    try:
        content = torch.load(file, weights_only=True)["cfg"]
    finally:
        torch.serialization.add_safe_globals(allowed)
    options = content["model"]
    assert content["optimizer"] == {"_name": "sgd", "momentum": 0.5}
    assert vars(options) == dict(options) and (options.arch, options.task) == ("transformer", "translation")
    assert options.data == "somewhere" and options.encoder_layers == 3


def spoiled(name: str, change):
    """``_layer_weights`` with a mistake in one of the weights."""
    original = stock.layer_weights

    def layer_weights(*args):
        weights = original(*args)
        weights[name] = change(weights[name])
        return {key: tensor for key, tensor in weights.items() if tensor is not None}

    return layer_weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bias: bias + torch.arange(len(bias)), "transformer does not compute what the subnet computes: "),
        (lambda bias: bias * torch.nan, "logits of up to .* differ by nan; nothing is written"),
        (lambda bias: None, "differ in their weights: encoder.layers.0.fc2.bias, encoder.layers.1.fc2.bias"),
    ],
)
def test_another_model_is_not_written(monkeypatch, change, message):
    monkeypatch.setattr(stock, "layer_weights", spoiled("fc2.bias", change))
    with pytest.raises(ExportError, match=message):
        stock_checkpoint(STATE, twin_of(EQUAL))


def test_a_model_that_has_diverged():
    twin = twin_of(EQUAL)
    with torch.no_grad():
        twin.decoder.layers[0].fc1.bias[0] = torch.inf
    with pytest.raises(InputError, match="the subnet: its logits are nan; nothing is written"):
        stock_checkpoint(STATE, twin)


@pytest.mark.parametrize(
    ("changes", "allow_padding", "message"),
    [
        (
            {"decoder_arbitrary_ende_attn": [-1, 2]},
            True,
            r"decoder_arbitrary_ende_attn is \[-1, 2\].*last encoder layer",
        ),
        (
            {"encoder_ffn_embed_dim": [17, 17, 33]},
            False,
            r"encoder_ffn_embed_dim is \[17, 17, 33\].*padding with zeros",
        ),
        ({"decoder_ende_attention_heads": [2, 4]}, False, "decoder has 4 heads of width 6 and 2 heads of width 6"),
        ({"decoder_ende_attention_heads": [2, 4]}, True, "no number of heads that divides decoder_embed_dim=12"),
    ],
)
def test_what_stock_fairseq_cannot_express_is_refused(changes, allow_padding, message):
    with pytest.raises(InputError, match=message):
        stock_checkpoint(STATE, twin_of(EQUAL | changes), allow_padding)


def assert_same_logits(made, twin) -> None:
    src, prev, target = batch()
    real, lengths = target.ne(1), src.ne(1).sum(1)
    with torch.no_grad():
        ours, theirs = (model(src, lengths, prev)[0][real] for model in (twin, made))
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_heads_of_unequal_width_are_padded():
    """With qkv_dim, fewer heads are wider: each is padded to the widest, which changes the scores' divisor."""
    space = {key: value for key, value in SPACE.items() if key != "head_dim"} | {
        "qkv_dim": 12,
        "encoder_attention_heads": [4, 2],
        "decoder_attention_heads": [4, 2],
        "decoder_ende_attention_heads": [4, 2],
        "encoder_embed_dim": [24, 12],
    }
    subnet = {key: value for key, value in EQUAL.items() if key != "head_dim"} | {
        "qkv_dim": 12,
        "encoder_embed_dim": 24,
        "decoder_embed_dim": 24,
        "encoder_attention_heads": [4, 2, 2],
        "decoder_attention_heads": [2, 4],
        "decoder_ende_attention_heads": [4, 4],
    }
    twin = twin_of(subnet, space)
    made = rebuilt(stock_checkpoint(STATE, twin, allow_padding=True))
    assert_same_logits(made, twin)


def test_a_q_for_each_layer_is_padded():
    """If every layer has its own q, heads have unequal widths, too."""
    without = {key: value for key, value in SPACE.items() if key != "head_dim"}
    space = without | {"encoder_qkv_dim": [20, 8], "decoder_qkv_dim": [20, 8], "decoder_attention_heads": [4, 2]}
    space |= {"encoder_attention_heads": [4, 2], "decoder_ende_attention_heads": [4, 2]}
    sizes = {key: value for key, value in EQUAL.items() if key != "head_dim"}
    sizes |= {"encoder_embed_dim": 24, "decoder_embed_dim": 30}
    subnet = sizes | {"encoder_qkv_dim": [8, 20, 8], "decoder_qkv_dim": [20, 8]}
    twin = twin_of(subnet, space)
    with pytest.raises(InputError, match="encoder has 2 heads of width 10 and 2 heads of width 4: stock"):
        stock_checkpoint(STATE, twin)
    made = rebuilt(stock_checkpoint(STATE, twin, allow_padding=True))
    assert_same_logits(made, twin)


LM_STATE = {
    "cfg": {
        "task": {"_name": "language_modeling_mos", "data": "somewhere", "search_space": "x", "add_bos_token": True},
        "criterion": {"_name": "cross_entropy"},
    }
}
LM_EQUAL = {
    "family": "decoder_only",
    "decoder_embed_dim": 12,
    "decoder_layers": 2,
    "decoder_ffn_embed_dim": 19,
    "decoder_attention_heads": 2,
    "qkv_dim": 12,
}
LM_UNEQUAL = LM_EQUAL | {
    "decoder_embed_dim": 28,
    "decoder_ffn_embed_dim": [37, 19],
    "decoder_attention_heads": [2, 4],
}
LM_OPTIONS = [
    {"share_decoder_input_output_embed": True},
    {"share_decoder_input_output_embed": False, "layernorm_embedding": True, "activation_fn": "gelu"},
    {"decoder_learned_pos": True, "no_scale_embedding": True},
    {"no_token_positional_embeddings": True},
]


def language_twin(subnet: dict, **options):
    space = SearchSpace.from_dict(LM_SPACE | {"decoder_embed_dim": [28, 12], "qkv_dim": 12})
    model = language_model(space, mos_routing="layer", tokens_per_sample=50, **options)
    model.set_active_subnet(Subnet.from_dict(subnet))
    return model.get_active_subnet()


@pytest.mark.parametrize("options", LM_OPTIONS, ids=lambda o: "-".join(o))
@pytest.mark.parametrize("subnet", [LM_EQUAL, LM_UNEQUAL], ids=["equal", "padded"])
@torch.no_grad()
def test_a_language_model_has_the_same_logits(subnet, options):
    twin = language_twin(subnet, **options)
    checkpoint = stock_checkpoint(LM_STATE, twin, allow_padding=subnet is LM_UNEQUAL)
    assert checkpoint["cfg"]["task"] == {"_name": "language_modeling", "data": "somewhere", "add_bos_token": True}
    assert checkpoint["cfg"]["criterion"] == {"_name": "cross_entropy"}
    assert checkpoint["cfg"]["model"]["add_bos_token"] is True
    cfg = OmegaConf.create(checkpoint["cfg"] | {"common": {"tpu": False}})  # as fairseq reads it
    made = build_model(cfg.model, fake_task(), from_checkpoint=True).eval()
    made.load_state_dict(checkpoint["model"])
    _, prev, target = batch()
    real = target.ne(1)
    expected = twin(prev)[0]
    torch.testing.assert_close(made(prev)[0][real], expected[real], atol=1e-5, rtol=1e-5)
    stepwise = decode_stepwise(made, None, prev)
    torch.testing.assert_close(stepwise[real], expected[real], atol=1e-5, rtol=1e-5)


def test_language_models_that_stock_fairseq_cannot_express():
    with pytest.raises(InputError, match=r"decoder_ffn_embed_dim is \[37, 19\].*padding with zeros"):
        stock_checkpoint(LM_STATE, language_twin(LM_EQUAL | {"decoder_ffn_embed_dim": [37, 19]}))
    with pytest.raises(InputError, match="no number of heads that divides decoder_embed_dim=12 has room for them"):
        stock_checkpoint(LM_STATE, language_twin(LM_EQUAL | {"decoder_attention_heads": [2, 4]}), allow_padding=True)


def test_another_language_model_is_not_written(monkeypatch):
    monkeypatch.setattr(stock, "layer_weights", spoiled("fc2.bias", lambda bias: bias + torch.arange(len(bias))))
    with pytest.raises(ExportError, match="fairseq's transformer_lm does not compute what the subnet computes: "):
        stock_checkpoint(LM_STATE, language_twin(LM_EQUAL))


BERT_STATE = {
    "cfg": {
        "task": {"_name": "masked_lm_mos", "data": "somewhere", "search_space": "x", "mask_prob": 0.3},
        "criterion": {"_name": "distillation_mos", "label_smoothing": 0.1},
    }
}
BERT_EQUAL = {
    "family": "encoder_only",
    "encoder_embed_dim": 12,
    "encoder_layers": 2,
    "encoder_ffn_embed_dim": 19,
    "encoder_attention_heads": 2,
    "head_dim": 6,
}
BERT_UNEQUAL = BERT_EQUAL | {
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": [37, 19],
    "encoder_attention_heads": [2, 4],
}


@pytest.mark.parametrize("options", [{}, {"untie_weights_roberta": True, "encoder_normalize_before": True}], ids=len)
@pytest.mark.parametrize("subnet", [BERT_EQUAL, BERT_UNEQUAL], ids=["equal", "padded"])
@torch.no_grad()
def test_a_masked_language_model_has_the_same_logits_and_classes(subnet, options):
    model = masked_language_model(mos_routing="layer", activation_fn="relu", **options)
    model.register_classification_head("genre", num_classes=3, inner_dim=7)
    model.set_active_subnet(Subnet.from_dict(subnet))
    twin = model.get_active_subnet()
    checkpoint = stock_checkpoint(BERT_STATE, twin, allow_padding=subnet is BERT_UNEQUAL)
    assert checkpoint["cfg"]["task"] == {"_name": "masked_lm", "data": "somewhere", "mask_prob": 0.3}
    assert checkpoint["cfg"]["criterion"] == {"_name": "masked_lm"}
    options = checkpoint["cfg"]["model"] | {"load_checkpoint_heads": True}
    made = RobertaModel.build_model(Namespace(**options), fake_task())
    made.load_state_dict(checkpoint["model"])
    tokens = batch()[2]
    real = tokens.ne(1)
    made.eval()
    torch.testing.assert_close(made(tokens)[0][real], twin(tokens)[0][real], atol=1e-5, rtol=1e-5)
    found, expected = (net(tokens, classification_head_name="genre")[0] for net in (made, twin))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (BOTTLENECK_SPACE, r"encoder_bottleneck_dim is \[24, 24, 24\]: stock fairseq has no maps around layers"),
        (FACTORISED_SPACE, "encoder_hidden_dim is 24: stock fairseq has no maps around layers"),
    ],
)
def test_masked_language_models_that_stock_fairseq_cannot_express(space, message):
    twin = masked_language_model(SearchSpace.from_dict(space)).get_active_subnet()
    with pytest.raises(InputError, match=f"^{message}$"):
        stock_checkpoint(BERT_STATE, twin, allow_padding=True)
