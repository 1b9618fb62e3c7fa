"""The configuration files, composed and converted by fairseq: recipes arrive, every option can be overridden."""

import math
import shutil
from dataclasses import fields

import pytest
import torch
import yaml
from fairseq import optim
from fairseq.optim.lr_scheduler import FairseqLRScheduler, build_lr_scheduler
from fairseq.tasks.language_modeling import LanguageModelingConfig
from fairseq.tasks.translation import TranslationConfig
from fairseq_cli import hydra_train
from omegaconf import DictConfig, OmegaConf

from mos_fairseq.criterions import LabelSmoothedCrossEntropyMosCriterion
from mos_fairseq.criterions.divergence import DistillationOptions
from mos_fairseq.models import SUPERNETS, TransformerLanguageModelMosConfig, TransformerMosConfig
from mos_fairseq.search_space import FAMILIES, SearchSpace
from mos_fairseq.standalone.configuration import Command
from mos_fairseq.standalone.kinds import kind_of
from mos_fairseq.standalone.options import overridden, training_options
from mos_fairseq.tasks import LanguageModelingMosConfig, TranslationMosConfig

from .conftest import CONFIG, ROOT, Built

pytestmark = pytest.mark.slow

WMT = {
    "dropout": 0.3,
    "attention_dropout": 0.1,
    "share_all_embeddings": True,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "max_update": 40000,
    "tokens": 4096 * 16 * 8,  # HAT's 8 GPUs
    # linear warm-up, then half a cosine: its top, its middle, its bottom
    "lr": {0: 1e-7, 5000: 5.0005e-4, 10000: 1e-3, 25000: 5.0005e-4, 39999: 1e-7},
}
# as published with HAT (sources are in the files); tiny as in the quickstart
RECIPES = {
    "wmt14_en_de": WMT,
    "wmt14_en_fr": WMT,
    "wmt19_en_de": WMT,
    "iwslt14_de_en": {
        "dropout": 0.375,
        "attention_dropout": 0.0,
        "share_all_embeddings": False,
        "weight_decay": 1e-4,
        "clip_norm": 25.0,
        "max_update": 50000,
        "tokens": 4096,
        "lr": {0: 1e-7, 5000: 2.5005e-4, 10000: 5e-4, 40000: 2.5e-4},
    },
    "tiny": {
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "share_all_embeddings": True,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
        "max_update": 2600,
        "tokens": 1024,
        "lr": {0: 0.0, 100: 1e-3, 300: 3e-3, 1450: 1.5e-3, 2600: 0.0},
    },
}


def test_every_preset_has_a_recipe():
    assert sorted(RECIPES) == SearchSpace.preset_names(FAMILIES["encoder_decoder"])
    for group, more in (("recipe", []), ("search_space", ["of_recipe"])):
        names = sorted(path.stem for path in (CONFIG / group).iterdir())
        assert names == sorted(SearchSpace.preset_names() + more), group


def test_either_group_of_a_preset_chooses_the_other():
    for name in SearchSpace.preset_names():
        by_space, by_recipe = (
            yaml.safe_load((CONFIG / group / f"{name}.yaml").read_text()) for group in ("search_space", "recipe")
        )
        assert by_space == {"defaults": [{"/recipe": name}, "_self_"], "task": {"search_space": name}}
        assert by_recipe["task"]["search_space"] == name


@pytest.mark.parametrize("name", ["iwslt14_de_en", "tiny_lm", "bert_tiny"])
def test_a_space_brings_its_recipe(compose, name):
    """One name chooses both, and either group accepts it."""
    family = SearchSpace.from_spec(name).family.name
    config = {task.family.name: task.task for task in SUPERNETS.values()}[family]
    by_space, by_recipe = (compose(f"{group}={name}", name=config) for group in ("search_space", "recipe"))
    assert by_space == by_recipe and by_space.task.search_space == name


def test_a_space_with_the_recipe_of_another(compose):
    cfg = compose("search_space=tiny", "recipe=iwslt14_de_en")
    assert cfg.task.search_space == "tiny"
    assert cfg.model.dropout == compose("recipe=iwslt14_de_en").model.dropout != compose("recipe=tiny").model.dropout


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_reaches_what_is_built(build, name):
    built, recipe = build(f"search_space={name}"), RECIPES[name]
    cfg, model, space = built.cfg, built.model, SearchSpace.from_spec(name)

    assert built.task.search_space == model.search_space == space
    assert model.encoder.layers[0].fc1.weight.shape[-2:] == (
        space.max("encoder_ffn_embed_dim"),
        space.max("encoder_embed_dim"),
    )
    assert any(".router." in parameter for parameter, _ in model.named_parameters())
    assert [subnet for subnet, _ in built.task.training_subnets(0)] == ["random"]
    assert built.task.cfg.cost_strata == (8 if name == "tiny" else 0)  # as compared in examples/studies/sampling

    for side in (model.encoder, model.decoder):
        assert side.dropout_module.p == side.layers[0].dropout_module.p == recipe["dropout"]
        assert side.layers[0].self_attn.dropout_module.p == recipe["attention_dropout"]
    shared = model.encoder.embed_tokens.weight is model.decoder.embed_tokens.weight
    assert shared == recipe["share_all_embeddings"]

    assert built.criterion.eps == 0.1
    adam = built.optimizer.optimizer_config
    assert tuple(adam["betas"]) == (0.9, 0.98) and adam["weight_decay"] == recipe["weight_decay"]
    assert {update: built.lr_of(update) for update in recipe["lr"]} == pytest.approx(recipe["lr"], rel=1e-3)

    assert cfg.optimization.clip_norm == recipe["clip_norm"]
    assert cfg.optimization.max_update == recipe["max_update"]
    devices = cfg.distributed_training.distributed_world_size
    assert devices * cfg.optimization.update_freq[0] * cfg.dataset.max_tokens == recipe["tokens"]
    assert not cfg.common.fp16 and not cfg.common.amp

    alone, schedule = standalone(cfg)
    assert {update: schedule.step_update(update) for update in recipe["lr"]} == pytest.approx(recipe["lr"], rel=1e-3)
    assert alone.optimizer.weight_decay == recipe["weight_decay"]
    assert devices * alone.optimization.update_freq[0] * alone.dataset.max_tokens == recipe["tokens"]
    assert alone.model.share_all_embeddings == recipe["share_all_embeddings"]


def standalone(cfg: DictConfig) -> tuple[DictConfig, FairseqLRScheduler]:
    """The configuration of a standalone model of the gap, for another number of updates."""
    recorded = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    kind = kind_of(recorded)
    words = ["data", *kind.command, "--subnet", "{}", "--max-update", "77", *overridden(training_options(recorded), [])]
    found = OmegaConf.create(Command(kind, words).configuration())
    optimizer = optim.build_optimizer(found.optimizer, [torch.nn.Parameter(torch.zeros(1))])
    return found, build_lr_scheduler(found.lr_scheduler, optimizer)


def encoder_layer(built) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in built.model.encoder.layers[0].named_parameters()}


def decoder_depths(built, updates: int) -> list[int]:
    """Depths that train in the first updates."""
    subnets = [subnet for update in range(updates) for _, subnet in built.task.training_subnets(update)]
    return sorted({subnet.decoder_layers for subnet in subnets})


OVERRIDES = {
    "model.mos_routing=layer": (lambda b: "router.head.weight" in encoder_layer(b), True),
    "model.num_experts=3": (lambda b: encoder_layer(b)["fc1.weight"][0], 3),
    "model.router_layers=3": (lambda b: "router.trunk.3.weight" in encoder_layer(b), True),
    "model.dropout=0.25": (lambda b: b.model.decoder.layers[1].dropout_module.p, 0.25),
    "model.encoder_normalize_before=true": (lambda b: b.model.encoder.layer_norm is not None, True),
    "task.subnet_sampling=alternate": (lambda b: [name for name, _ in b.task.training_subnets(0)], ["largest"]),
    "task.elastic_from='decoder_layers:7,encoder_embed_dim:8'": (lambda b: decoder_depths(b, 7), [2]),
    "model.dropout_scaling=none": (lambda b: str(b.model.cfg.dropout_scaling), "none"),
    "task.valid_subnets=smallest": (lambda b: len(b.task.valid_subnets), 1),
    "criterion.label_smoothing=0.3": (lambda b: b.criterion.eps, 0.3),
    "optimizer.weight_decay=0.5": (lambda b: b.optimizer.optimizer_config["weight_decay"], 0.5),
    "optimization.lr=[0.01]": (lambda b: b.lr_of(500), 0.01),
    "lr_scheduler.warmup_updates=500": (lambda b: b.lr_of(250) / b.lr_of(500), 0.5),
    "common.seed=4": (lambda b: b.task.cfg.seed, 4),
}


def test_overrides_change_what_is_built(build):
    before, after = build("search_space=tiny"), build("search_space=tiny", *OVERRIDES)
    for override, (seen, value) in OVERRIDES.items():
        assert seen(before) != value, override
        assert seen(after) == pytest.approx(value), override


def test_experts_of_low_rank(build):
    built = build("search_space=tiny", "model.mos_routing=rank", "model.expert_rank=4", "model.freeze_shared=true")
    assert (
        encoder_layer(built)["fc1.low_rank.up"][-1] == 4 and not built.model.encoder.layers[0].fc1.weight.requires_grad
    )


def test_distillation(build):
    built = build("search_space=tiny", "distillation=kl", "criterion.distillation_temperature=2")
    assert built.criterion.options == DistillationOptions(temperature=2.0, label_smoothing=0.1)
    assert [subnet for subnet, _ in built.task.training_subnets(0)] == ["largest", "random", "smallest"]
    overrides = ["alpha_minus=-0.5", "alpha_plus=2", "alpha_clip=inf", "distillation_weight=0.7"]
    hidden = ["hidden_weight=0.25", "hidden_layers=last", "distillation_from=9"]
    options = [f"criterion.{override}" for override in overrides + hidden]
    criterion = build("search_space=tiny", "distillation=alpha", *options).criterion
    assert criterion.options == DistillationOptions((-0.5, 2.0), math.inf, 1.0, 0.7, 0.1)
    assert (criterion.hidden_weight, criterion.hidden_layers, criterion.distillation_from) == (0.25, "last", 9)
    assert type(build("search_space=tiny").criterion) is LabelSmoothedCrossEntropyMosCriterion


def test_constant_ending(build):
    overrides = ["_name=exponential_constant", "warmup_updates=10", "+warmup_init_lr=0"]
    overrides += ["+decay_updates=100", "+end_lr_ratio=0.25"]
    words = [f"{o[:1]}lr_scheduler.{o[1:]}" if o[0] in "+~" else f"lr_scheduler.{o}" for o in overrides]
    built = build("search_space=tiny", "optimization.lr=[0.002]", *words)
    assert [built.lr_of(t) for t in (0, 5, 10, 60, 110, 500)] == pytest.approx([0, 1e-3, 2e-3, 1e-3, 5e-4, 5e-4])


def test_plain_supernet_of_an_own_space(build, tmp_path):
    space = yaml.safe_load((ROOT / "mos_fairseq/search_space/presets/tiny.yaml").read_text())
    space["encoder_embed_dim"] = [72, 40]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(space))
    built = build("search_space=tiny", f"task.search_space={tmp_path / 'mine.yaml'}", "model.mos_routing=none")
    assert built.model.search_space == SearchSpace.from_dict(space)
    assert encoder_layer(built)["fc1.weight"][-1] == 72
    assert not any("router" in name for name, _ in built.model.named_parameters())


def test_own_options_need_no_plus():
    def own(config: type, inherited: type | None = None) -> set[str]:
        theirs = {field.name for field in fields(inherited)} if inherited else set()
        interpolated = {field.name for field in fields(config) if str(field.default).startswith("${")}
        return {field.name for field in fields(config)} - theirs - interpolated - {"_name"}

    for name, task, stock, model in (
        ("translation_mos", TranslationMosConfig, TranslationConfig, TransformerMosConfig),
        ("language_modeling_mos", LanguageModelingMosConfig, LanguageModelingConfig, TransformerLanguageModelMosConfig),
    ):
        written = yaml.safe_load((CONFIG / f"{name}.yaml").read_text(encoding="utf-8"))
        assert own(task, stock) <= set(written["task"])
        assert own(model) <= set(written["model"])


@pytest.mark.parametrize("group", ["recipe", "search_space"])
def test_own_recipe(compose, tmp_path, group):
    """In the group search_space, where recipes once were, too."""
    (tmp_path / group).mkdir()
    recipe = "# @package _global_\ndefaults: [iwslt14_de_en, _self_]\noptimization: {max_update: 7}\n"
    (tmp_path / group / "mine.yaml").write_text(recipe)
    cfg = compose(f"hydra.searchpath=[file://{tmp_path}]", f"{group}=mine")
    assert (cfg.task.search_space, cfg.optimization.max_update) == ("iwslt14_de_en", 7)
    assert cfg.common.user_dir == f"{CONFIG}/.."


def test_user_dir_is_the_package_of_the_config_dir(compose, tmp_path, monkeypatch):
    def user_dir(cfg: DictConfig) -> str:
        return cfg.common.user_dir.removesuffix("/config/..")

    installed = tmp_path / "site-packages" / "mos_fairseq"
    shutil.copytree(CONFIG, installed / "config")
    assert user_dir(compose("search_space=tiny", config_dir=installed / "config")) == str(installed)
    monkeypatch.chdir(ROOT)
    assert user_dir(compose("search_space=tiny", config_dir=CONFIG.relative_to(ROOT))) == str(ROOT / "mos_fairseq")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search_space=unknown"], "Could not find 'search_space/unknown'"),
        (["recipe=unknown"], "Could not find 'recipe/unknown'"),
        ([], "You must specify 'recipe'"),
    ],
)
def test_bad_recipe_is_told_with_the_choices(compose, capfd, overrides, message):
    with pytest.raises(SystemExit) as stop:
        compose(*overrides)
    told = capfd.readouterr().err
    assert stop.value.code == 1
    assert message in told and all(name in told for name in RECIPES)
    assert "Traceback" not in told


def test_wrong_type_names_the_key(compose, capfd):
    with pytest.raises(SystemExit):
        compose("search_space=tiny", "optimization.max_update=many")
    told = capfd.readouterr().err
    assert "optimization.max_update" in told and "many" in told


def test_a_mistake_is_told_in_our_line(compose, monkeypatch, capfd):
    monkeypatch.setattr(hydra_train, "pre_main", Built)
    with pytest.raises(SystemExit) as stop:
        compose("search_space=tiny", "model.num_experts=0")
    assert stop.value.code == 1
    assert "InputError: num_experts is 0: allowed are whole numbers from 1 up\n" in capfd.readouterr().err
