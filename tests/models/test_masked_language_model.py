"""Masked language models: the largest subnet is stock fairseq's roberta, and any subnet is its static twin."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from fairseq.models.roberta import RobertaModel
from torch import Tensor

from mos_fairseq.errors import InputError
from mos_fairseq.models import RobertaMosConfig, RobertaMosModel, RobertaSubnetConfig, RobertaSubnetModel
from mos_fairseq.models.parameter_summary import parameter_summary
from mos_fairseq.modules import ElasticLinear, ElasticTransformerLayer
from mos_fairseq.modules.factored_linear import reader
from mos_fairseq.search_space import SearchSpace
from tests.helpers import dictionary, fake_task, masked_language_model, perturb, small_space
from tests.seeds import moved
from tests.spaces import BERT_RANK_SPACE, BERT_SPACE, BOTTLENECK_SPACE, FACTORISED_SPACE

DIM, HEADS, FFN, LAYERS = 24, 4, 37, 3
SPACES = {
    "uniform": BERT_SPACE,
    "factorised": FACTORISED_SPACE,
    "bottleneck": BOTTLENECK_SPACE,
    "rank": BERT_RANK_SPACE,
}
ROUTINGS = [
    {"mos_routing": "none"},
    {"mos_routing": "layer", "num_experts": 3, "mos_linears": "all"},
    {"mos_routing": "neuron", "num_experts": 2, "arch_encoding": "per_layer"},
]


def sentences(seed: int = 3) -> Tensor:
    """Tokens [3, 9] that begin with <s> and end with </s>, padded on the right."""
    generator = torch.Generator().manual_seed(moved(seed))
    tokens = torch.full((3, 9), 1)
    for row, length in enumerate((9, 5, 7)):
        words = torch.randint(4, 31, (length - 2,), generator=generator).tolist()
        tokens[row, :length] = torch.tensor([0, *words, 2])
    return tokens


def stock_model(**options) -> RobertaModel:
    args = Namespace(
        encoder_embed_dim=DIM,
        encoder_ffn_embed_dim=FFN,
        encoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        max_positions=50,
        **options,
    )
    torch.manual_seed(moved(5))
    model = RobertaModel.build_model(args, fake_task())
    perturb(model)
    return model


@torch.no_grad()
def copy_weights(ours: RobertaMosModel, stock: RobertaModel) -> None:
    """Stock weights into the supernet: query, key and value are fused, experts are stacked."""
    state = stock.state_dict()
    used = {"encoder.sentence_encoder.version"}

    def take(name: str) -> Tensor:
        name = "encoder.lm_head.weight" if name.startswith("encoder.output_embedding") else name
        head = name.startswith(("encoder.lm_head", "classification_heads"))
        name = name if head else name.replace("encoder.", "encoder.sentence_encoder.", 1)
        used.add(name)
        return state[name]

    for name, parameter in ours.named_parameters():
        if ".maps." in name or ".router." in name:
            continue
        if "qkv_proj" in name:
            value = torch.stack([take(name.replace("qkv_proj", f"{part}_proj")) for part in "qkv"])[None]
        else:
            elastic = isinstance(ours.get_submodule(name.rpartition(".")[0]), ElasticLinear)
            value = take(name)[None, None] if elastic else take(name)
        parameter.copy_(value.expand_as(parameter))
    take("encoder.lm_head.weight")
    assert used == set(state)


def check_equal(ours: RobertaMosModel, stock: RobertaModel) -> None:
    """Features, logits of all tokens and of some, and gradients; real tokens count (test (a), (b) and (c))."""
    tokens = sentences()
    real = tokens.ne(1)
    masked = real & torch.rand(real.shape, generator=torch.Generator().manual_seed(1)).lt(0.4)
    for mode in (True, False):
        stock.train(mode), ours.train(mode)
        for options in ({"features_only": True}, {}):
            expected, actual = (model(tokens, **options)[0][real] for model in (stock, ours))
            torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
        theirs, mine = (model(tokens, masked_tokens=masked)[0] for model in (stock, ours))
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)
    for logits in (theirs, mine):
        torch.nn.functional.cross_entropy(logits, tokens[masked]).backward()
    gradients = dict(stock.named_parameters())
    checked = 0
    for name, parameter in ours.named_parameters():
        theirs = gradients.get(name.replace("encoder.", "encoder.sentence_encoder.", 1), gradients.get(name))
        if theirs is not None:
            mine = parameter.grad
            if mine.dim() > theirs.dim():
                mine = mine.sum(0)  # experts' shares add up to one
            torch.testing.assert_close(mine.view_as(theirs), theirs.grad, atol=1e-6, rtol=1e-5, msg=name)
            checked += 1
    assert checked > 30
    fused = ours.encoder.layers[1].self_attn.qkv_proj.weight.grad.sum(0)
    attention = stock.encoder.sentence_encoder.layers[1].self_attn
    expected = torch.stack([getattr(attention, f"{part}_proj").weight.grad for part in "qkv"])
    torch.testing.assert_close(fused, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("space", ["uniform", "bottleneck"])
@pytest.mark.parametrize("options", [{}, {"untie_weights_roberta": True, "encoder_normalize_before": True}], ids=len)
@pytest.mark.parametrize("routing", ["none", "layer", "neuron"])
def test_the_largest_subnet_is_stock_roberta(space, options, routing):
    """Also with experts that are equal, and with maps that are identities."""
    rates = {"dropout": 0.0, "attention_dropout": 0.0}
    stock = stock_model(**options, **rates)
    ours = masked_language_model(SearchSpace.from_dict(SPACES[space]), mos_routing=routing, **options, **rates)
    if ours.encoder.maps is not None:
        ours.encoder.maps.reset_parameters(identity=True)
    copy_weights(ours, stock)
    check_equal(ours, stock)


@pytest.mark.parametrize("space", SPACES)
def test_what_is_said_of_the_parameters(space):
    """The largest subnet alone is its twin, whose maps are merged."""
    model = masked_language_model(SearchSpace.from_dict(SPACES[space]))
    twin = sum(p.numel() for p in model.get_active_subnet().parameters())
    assert parameter_summary(model).endswith(f"; the largest subnet alone: {twin:,}")


def test_maps_of_a_single_layer_are_drawn():
    """With one layer, a map leads into each layer and out of it in both kinds of spaces; only around layers with widths
    of their own it begins as an identity."""
    single = {"encoder_layers": [1]}
    for data, identity in ((FACTORISED_SPACE | single, False), (BOTTLENECK_SPACE | single, True)):
        subnet = SearchSpace.from_dict(data).largest()
        ours = masked_language_model(SearchSpace.from_dict(data))
        config = RobertaSubnetConfig(subnet=subnet.key, max_positions=19)
        twin = RobertaSubnetModel.from_subnet(config, subnet, dictionary(31))
        for weight in (ours.encoder.maps.into[0].weight[0, 0], twin.encoder.maps[0].weight):
            assert bool(weight.diagonal().mean() > 0.5) == identity  # the helper adds noise


def test_classification_heads_are_stocks():
    stock, ours = stock_model().eval(), masked_language_model().eval()
    for model in (stock, ours):
        model.register_classification_head("genre", num_classes=3)
        model.register_classification_head("topic", num_classes=5, inner_dim=7)
        model.eval()
    perturb(stock)
    copy_weights(ours, stock)
    for name in ("genre", "topic"):
        expected, actual = (model(sentences(), classification_head_name=name)[0] for model in (stock, ours))
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("routing", ROUTINGS, ids=lambda o: o["mos_routing"])
def test_the_twin_is_the_active_subnet(routing, space):
    """Of 20 random subnets each, with padding: words, features and classes; maps are merged."""
    options = {"untie_weights_roberta": space == "bottleneck", "encoder_normalize_before": space == "factorised"}
    model = masked_language_model(SearchSpace.from_dict(SPACES[space]), **routing, **options)
    model.register_classification_head("genre", num_classes=3)
    model.register_classification_head("topic", num_classes=5, inner_dim=7)
    model.eval()
    draws = [model.search_space.sample_subnet(routing["mos_routing"], i) for i in range(20)]
    tokens = sentences()
    real = tokens.ne(1)
    for subnet in (*draws, model.search_space.largest(), model.search_space.smallest()):
        model.set_active_subnet(subnet)
        twin = model.get_active_subnet()
        assert type(twin) is RobertaSubnetModel and twin.subnet == subnet and not twin.training
        assert not any(isinstance(m, (ElasticLinear, ElasticTransformerLayer)) for m in twin.modules())
        with torch.no_grad():
            for more in ({}, {"features_only": True}):
                expected, actual = (net(tokens, **more)[0][real] for net in (model, twin))
                torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
            for name in ("genre", "topic"):
                expected, actual = (net(tokens, classification_head_name=name)[0] for net in (model, twin))
                torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
            mine, twins = (net(tokens, return_all_hiddens=True)[1]["inner_states"] for net in (model, twin))
        assert [x.size(-1) for x in mine] == [
            subnet.encoder_embed_dim,
            *(layer.width for layer in subnet.layers("encoder")),
        ]
        for x, y in zip(mine, twins, strict=True):
            torch.testing.assert_close(y.transpose(0, 1)[real], x.transpose(0, 1)[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_every_parameter_learns_in_the_largest_subnet(space):
    model = masked_language_model(SearchSpace.from_dict(SPACES[space]), mos_linears="all", untie_weights_roberta=True)
    model(sentences())[0].square().mean().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("static", [False, True], ids=["supernet", "twin"])
def test_it_starts_as_bert_does(space, static):
    """Matrices and tables are normal draws of deviation 0.02 but for padding's rows, biases are zero."""
    wide = {"encoder_embed_dim": [192], "encoder_hidden_dim": [180], "encoder_bottleneck_dim": [192, 24]}
    data = SPACES[space] | {key: value for key, value in wide.items() if key in SPACES[space]}
    search_space = SearchSpace.from_dict(data)
    torch.manual_seed(moved(1))
    if static:
        cfg = RobertaSubnetConfig(max_positions=50)
        model = RobertaSubnetModel.from_subnet(cfg, search_space.largest(), dictionary(500))
    else:
        cfg = RobertaMosConfig(max_positions=50, mos_routing="layer")
        model = RobertaMosModel.from_search_space(cfg, search_space, dictionary(500))
    for name, parameter in model.named_parameters():
        if "layer_norm" in name or "layernorm" in name or ".router." in name:
            continue
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif ".maps." in name and space == "bottleneck":
            torch.testing.assert_close(parameter.flatten(0, -2), torch.eye(192), atol=0, rtol=0)
        else:
            # of factors, the product's is: 24 times the product of their variances
            std = 24**-0.5 if ".up." in name else 0.02
            assert float(parameter.detach().std()) == pytest.approx(std, rel=0.1), name
            assert abs(float(parameter.detach().mean())) < std / 10, name
    assert not model.encoder.embed_tokens.weight[1].any() and not model.encoder.embed_positions.weight[1].any()
    if not static:
        fc1 = reader(model.encoder.layers[0].fc1).weight
        assert torch.equal(fc1[0], fc1[1])


def test_heads_of_a_checkpoint(caplog):
    """They are left out, made with --load-checkpoint-heads, or loaded where this model has such ones."""
    model = masked_language_model()
    model.register_classification_head("genre", num_classes=3)
    state = model.state_dict()
    plain = masked_language_model(seed=2)
    plain.load_state_dict(dict(state))
    assert not plain.classification_heads and 'head "genre" of the weights is left out' in caplog.text
    loading = masked_language_model(seed=2, load_checkpoint_heads=True)
    loading.load_state_dict(dict(state))
    other = masked_language_model(seed=2)
    other.register_classification_head("genre", num_classes=3)
    other.load_state_dict(dict(state))
    stored = state["classification_heads.genre.dense.weight"]
    for found in (loading, other):
        assert torch.equal(found.classification_heads["genre"].dense.weight, stored)
    wider = masked_language_model(seed=2)
    wider.register_classification_head("genre", num_classes=4)
    before = wider.classification_heads["genre"].out_proj.weight.clone()
    wider.load_state_dict(dict(state))
    assert torch.equal(wider.classification_heads["genre"].out_proj.weight, before)


def test_dropout_follows_each_layers_width():
    space = SearchSpace.from_dict(BOTTLENECK_SPACE)
    model = masked_language_model(space, dropout=0.3)
    model.set_active_subnet(space.largest().replace(encoder_bottleneck_dim=(8, 24, 16)))
    assert [layer.dropout_module.p for layer in model.encoder.layers] == pytest.approx([0.1, 0.3, 0.2])
    assert model.encoder.dropout_module.p == 0.3


def test_mistakes():
    cfg = RobertaMosConfig(max_positions=50)
    with pytest.raises(InputError, match="family encoder_decoder: --arch roberta_mos takes encoder_only$"):
        RobertaMosModel.from_search_space(cfg, small_space(), dictionary())
    cfg.max_positions = None
    with pytest.raises(InputError, match="^max_positions is not given"):
        RobertaMosModel.from_search_space(cfg, SearchSpace.from_dict(BERT_SPACE), dictionary())
