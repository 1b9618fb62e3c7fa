"""The configuration of language models: their recipes work, and recipes of another family are refused."""

from argparse import Namespace

import pytest
from fairseq.models.transformer_lm import base_lm_architecture, transformer_lm_baevski_wiki103
from fairseq_cli import hydra_train

from mos_fairseq.criterions import DistillationMosCriterion
from mos_fairseq.search_space import FAMILIES, SearchSpace

from .conftest import Built

NAME = "language_modeling_mos"
RECIPES = {
    "tiny_lm": {
        "trains": ["largest", "random", "smallest"],
        "weight_decay": 0.0,
        "break": "eos",
        "positions": 128,
        "max_update": 0,
        "tokens": 2048,
        "lr": {0: 0.0, 150: 1e-3, 300: 2e-3, 1200: 1e-3},
    },
    # fairseq's for its transformer_lm
    "wikitext103": {
        "trains": ["random"],
        "weight_decay": 0.01,
        "break": "none",
        "positions": 512,
        "max_update": 50000,
        "tokens": 2048 * 16,
        "lr": {0: 1e-7, 2000: 2.5005e-4, 4000: 5e-4, 16000: 2.5e-4},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SearchSpace.preset_names(FAMILIES["decoder_only"]))
def test_recipe_reaches_what_is_built(build, name):
    built, recipe, space = build(f"search_space={name}", name=NAME), RECIPES[name], SearchSpace.from_spec(name)
    cfg, model = built.cfg, built.model
    assert built.task.search_space == model.search_space == space
    assert len(model.decoder.layers) == space.max("decoder_layers")
    assert any(".router." in parameter for parameter, _ in model.named_parameters())
    assert model.decoder.output_embedding is model.decoder.embed_tokens and model.decoder.dropout_module.p == 0.1
    assert (str(cfg.task.sample_break_mode), model.max_positions()) == (recipe["break"], recipe["positions"])
    assert [subnet for subnet, _ in built.task.training_subnets(0)] == recipe["trains"]
    adam = built.optimizer.optimizer_config
    assert tuple(adam["betas"]) == (0.9, 0.98) and adam["weight_decay"] == recipe["weight_decay"]
    assert {update: built.lr_of(update) for update in recipe["lr"]} == pytest.approx(recipe["lr"], rel=1e-3)
    assert cfg.optimization.update_freq[0] * cfg.dataset.max_tokens == recipe["tokens"]
    assert (cfg.optimization.max_update, cfg.optimization.clip_norm) == (recipe["max_update"], 0.0)


def test_wikitext103_reaches_from_fairseqs_sizes_to_fairseqs_sizes():
    space = SearchSpace.from_spec("wikitext103")
    for subnet, architecture in (
        (space.largest(), transformer_lm_baevski_wiki103),
        (space.smallest(), base_lm_architecture),
    ):
        stock = Namespace()
        architecture(stock)
        assert (subnet.decoder_embed_dim, subnet.decoder_layers) == (stock.decoder_embed_dim, stock.decoder_layers)
        assert set(subnet.decoder_ffn_embed_dim) == {stock.decoder_ffn_embed_dim}
        assert stock.decoder_attention_heads in space.decoder_attention_heads


@pytest.mark.slow
def test_overrides_change_what_is_built(build):
    options = ["distillation=kl", "model.mos_routing=none", "task.valid_subnets=smallest", "task.tokens_per_sample=64"]
    built = build("search_space=tiny_lm", *options, name=NAME)
    assert isinstance(built.criterion, DistillationMosCriterion) and built.model.max_positions() == 64
    assert not any("router" in name for name, _ in built.model.named_parameters())
    assert list(built.task.valid_subnets) == ["smallest"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        (NAME, ["search_space=tiny"], "space is tiny: is it of the family that language_modeling_mos takes?"),
        ("translation_mos", ["search_space=wikitext103"], "is it of the family that translation_mos takes?"),
        (
            NAME,
            ["search_space=tiny_lm", "task.search_space=tiny"],
            "search_space is of family encoder_decoder: --arch transformer_lm_mos takes decoder_only",
        ),
        (NAME, ["search_space=tiny_lm", "task.search_space=null"], "a preset (tiny_lm, wikitext103) or a YAML file"),
    ],
)
def test_a_space_of_another_family_is_refused(compose, monkeypatch, capfd, config, overrides, message):
    monkeypatch.setattr(hydra_train, "pre_main", build_as_fairseq_train)
    with pytest.raises(SystemExit) as stop:
        compose(*overrides, name=config)
    assert stop.value.code == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "InputError: " in line]
    assert message in line


def build_as_fairseq_train(cfg) -> None:
    """fairseq-train up to the model."""
    from fairseq import utils
    from fairseq.dataclass.initialize import add_defaults

    utils.import_user_module(cfg.common)
    add_defaults(cfg)
    Built(cfg)
