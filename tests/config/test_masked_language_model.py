"""The configuration of masked language models: its recipes arrive."""

from __future__ import annotations

import pytest
from fairseq.criterions.masked_lm import MaskedLmLoss

from mos_fairseq.criterions import DistillationMosCriterion
from mos_fairseq.search_space import FAMILIES, SearchSpace

NAME = "masked_lm_mos"
MOS_BERT = {
    "positions": 128,
    "rates": (0.0, 0.1),
    "max_update": 125_000,
    "tokens": 2048 * 128,
    "lr": {0: 0.0, 5000: 2.5e-4, 10_000: 5e-4, 67_500: 2.5e-4, 125_000: 0.0},
}
RECIPES = dict.fromkeys(("bert_bottleneck", "bert_uniform", "bert_factorised"), MOS_BERT) | {
    "bert_tiny": {
        "positions": 96,
        "rates": (0.0, 0.0),
        "max_update": 10_000,
        "tokens": 1536,
        "lr": {0: 0.0, 250: 5e-4, 500: 1e-3, 5250: 5e-4, 10_000: 0.0},
    }
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SearchSpace.preset_names(FAMILIES["encoder_only"]))
def test_recipe_reaches_what_is_built(build, name):
    built, recipe, space = build(f"search_space={name}", name=NAME), RECIPES[name], SearchSpace.from_spec(name)
    cfg, model = built.cfg, built.model
    assert built.task.search_space == model.search_space == space
    assert len(model.encoder.layers) == space.max("encoder_layers")
    assert any(".router." in parameter for parameter, _ in model.named_parameters())
    assert (model.encoder.maps is not None) == bool(space.largest().maps("encoder"))
    assert isinstance(built.criterion, MaskedLmLoss) and built.task.cfg.mask_prob == 0.15
    assert model.max_positions() == recipe["positions"] == built.task.max_positions()
    assert (model.encoder.dropout_module.p, model.encoder.layers[0].self_attn.dropout_module.p) == recipe["rates"]
    assert [subnet for subnet, _ in built.task.training_subnets(0)] == ["largest", "random", "smallest"]
    adam = built.optimizer.optimizer_config
    assert tuple(adam["betas"]) == (0.9, 0.98) and adam["weight_decay"] == 0.01
    assert {update: built.lr_of(update) for update in recipe["lr"]} == pytest.approx(recipe["lr"], rel=1e-3)
    of_batch = cfg.dataset.max_tokens or cfg.dataset.batch_size * cfg.task.tokens_per_sample
    assert cfg.optimization.update_freq[0] * of_batch == recipe["tokens"]
    assert (cfg.optimization.max_update, cfg.optimization.clip_norm) == (recipe["max_update"], 0.0)


@pytest.mark.slow
def test_overrides_change_what_is_built(build):
    options = ["distillation=kl", "model.mos_routing=none", "task.mask_prob=0.4", "task.tokens_per_sample=64"]
    built = build("search_space=bert_tiny", *options, "model.untie_weights_roberta=true", name=NAME)
    assert isinstance(built.criterion, DistillationMosCriterion) and built.criterion.eps == 0
    assert built.model.max_positions() == 64 and built.task.cfg.mask_prob == 0.4
    assert built.model.encoder.output_embedding is not built.model.encoder.embed_tokens
    assert not any("router" in name for name, _ in built.model.named_parameters())
