"""How a standalone model is trained: as the supernet was, by what its checkpoint records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.dataclass.configs import CommonConfig, DatasetConfig, OptimizationConfig
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY
from fairseq.optim.lr_scheduler import LR_SCHEDULER_DATACLASS_REGISTRY
from fairseq.tasks.translation import TranslationConfig

from mos_fairseq.errors import InputError
from mos_fairseq.models.transformer_config import TransformerBaseConfig

Options = dict[str, str | None]
"""Options of ``fairseq-train`` by name; None for one that takes no value."""

# options that change nothing in a trained model
NEUTRAL = ("--num-workers", "--save-interval-updates", "--keep-interval-updates", "--log-interval")
STOCK_CRITERION = "label_smoothed_cross_entropy"
# of the parts of the configuration that hold more than how a model is trained
_NAMES = {
    "common": ("seed", "fp16", "memory_efficient_fp16", "bf16", "amp"),
    "dataset": (
        "train_subset",
        "max_tokens",
        "batch_size",
        "required_batch_size_multiple",
        "skip_invalid_size_inputs_valid_test",
        "curriculum",
    ),
    "optimization": ("lr", "update_freq", "clip_norm", "sentence_avg", "stop_min_lr", "skip_remainder_batch"),
    "task": (
        "source_lang",
        "target_lang",
        "left_pad_source",
        "left_pad_target",
        "max_source_positions",
        "max_target_positions",
        "upsample_primary",
        "truncate_source",
        "num_batch_buckets",
    ),
}


def training_options(cfg: Mapping[str, Any]) -> Options:
    """Options of ``fairseq-train`` that train a ``transformer_subnet`` as a supernet was trained.

    Optimizer, learning rate and its schedule, dropout rates, batches, label smoothing, shared embeddings, seed…; what
    equals fairseq's default is left out. Not among them is what only a supernet has, and how long it was trained. A
    criterion of this package becomes fairseq's ``label_smoothed_cross_entropy``. The dropout rates are the configured
    ones: in the supernet a narrow subnet's are scaled down by its width.

    Args:
        cfg: the supernet's configuration, as plain containers (``read_supernet(path)["cfg"]``).

    Raises:
        InputError: the checkpoint records an optimizer or a schedule that is not installed.
    """
    options: Options = {}
    parts = {"common": CommonConfig, "dataset": DatasetConfig, "optimization": OptimizationConfig}
    for part, config in (parts | {"task": TranslationConfig}).items():
        options |= _changed(cfg.get(part) or {}, config, _NAMES[part])
    options |= _changed(cfg["model"], TransformerBaseConfig)
    options |= _component(cfg, "optimizer", OPTIMIZER_DATACLASS_REGISTRY)
    options |= _component(cfg, "lr_scheduler", LR_SCHEDULER_DATACLASS_REGISTRY)
    return options | _criterion_options(cfg.get("criterion") or {})


def _component(cfg: Mapping[str, Any], part: str, registry: Mapping[str, type]) -> Options:
    section = cfg.get(part) or {}
    name = section.get("_name")
    if name not in registry:
        raise InputError(f"{part} of the checkpoint is {name}: fairseq here knows {', '.join(sorted(registry))}")
    return {f"--{part.replace('_', '-')}": name} | _changed(section, registry[name])


def _criterion_options(section: Mapping[str, Any]) -> Options:
    name = section.get("_name")
    config = CRITERION_DATACLASS_REGISTRY.get(name)
    if config is None or not config.__module__.startswith("fairseq."):
        name, config = STOCK_CRITERION, CRITERION_DATACLASS_REGISTRY[STOCK_CRITERION]
    return {"--criterion": name} | _changed(section, config)


def _changed(section: Mapping[str, Any], config: type, names: Sequence[str] | None = None) -> Options:
    """Options for the fields of ``section`` that ``config`` knows and whose value is not its default."""
    defaults, options = config(), {}
    for field in fields(config):
        name, default = field.name, getattr(defaults, field.name, None)
        if name.startswith("_") or name not in section or (names is not None and name not in names):
            continue
        if isinstance(default, str) and default.startswith("${"):  # it follows another field
            if name not in (names or ()):
                continue
            default = None
        value = section[name]
        if value is None or _text(value) == _text(default):
            continue
        flag = isinstance(value, bool)
        options[f"--{name.replace('_', '-')}"] = None if flag else _text(value)
    return options


def _text(value: Any) -> str:
    """As on the command line: fairseq takes lists as numbers with commas between them."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def effective(arguments: Sequence[str]) -> dict[str, list[str]]:
    """What ``arguments`` of ``fairseq-train`` say of the outcome: the last values of each option by its name, without
    the options that change nothing in it."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in arguments:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found[name] = [value] if equals else []
        else:
            found.setdefault(name, []).append(word)
    return {name: values for name, values in sorted(found.items()) if name not in NEUTRAL}


def overridden(options: Options, more: Sequence[str]) -> list[str]:
    """Arguments for ``options`` and, after them, those of the command line ``more``, which win."""
    given = {text.partition("=")[0] for text in more if text.startswith("--")}
    arguments: list[str] = []
    for name, value in options.items():
        if name not in given:
            arguments += [name] if value is None else [name, value]
    return arguments + list(more)
