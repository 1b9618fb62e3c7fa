"""fairseq's configuration of a training: the fields that affect the outcome, and the configuration of a command."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from fairseq import options
from fairseq.dataclass.configs import CommonConfig, DatasetConfig, DistributedTrainingConfig, OptimizationConfig
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.registry import REGISTRIES
from omegaconf import MISSING, OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.standalone.kinds import Kind

SECTIONS = {
    "common": CommonConfig,
    "distributed_training": DistributedTrainingConfig,
    "dataset": DatasetConfig,
    "optimization": OptimizationConfig,
}
"""Sections that are the same for models of all kinds; ``task`` and ``model`` differ."""

COMPONENTS = ("optimizer", "lr_scheduler", "criterion")
"""Sections whose fields depend on the chosen name."""

# fields that do not change the weights after a number of updates: places and formats of files, logs, validation, and
# the number of processes, which the number of batches of an update replaces
NEUTRAL: dict[str, tuple[str, ...]] = {
    "common": (
        "no_progress_bar",
        "log_interval",
        "log_format",
        "log_file",
        "aim_repo",
        "aim_run_hash",
        "tensorboard_logdir",
        "wandb_project",
        "azureml_logging",
        "user_dir",
        "empty_cache_freq",
        "all_gather_list_size",
        "profile",
        "reset_logging",
        "suppress_crashes",
        "use_plasma_view",
        "plasma_path",
    ),
    "distributed_training": (
        "distributed_world_size",
        "distributed_num_procs",
        "distributed_rank",
        "distributed_backend",
        "distributed_init_method",
        "distributed_port",
        "device_id",
        "distributed_no_spawn",
        "ddp_backend",  # all that support supernets mean the same
        "ddp_comm_hook",  # for torch's wrapper, which supernets do not use
        "bucket_cap_mb",
        "find_unused_parameters",
        "gradient_as_bucket_view",
        "fast_stat_sync",
        "heartbeat_timeout",
        "broadcast_buffers",
        "nprocs_per_node",
        "zero_sharding",
        # for backends that do not support supernets
        "slowmo_momentum",
        "slowmo_base_algorithm",
        "localsgd_frequency",
        "no_reshard_after_forward",
        "fp32_reduce_scatter",
        "cpu_offload",
        "use_sharded_state",
        "not_fsdp_flatten_parameters",
    ),
    "dataset": (
        "num_workers",
        "skip_invalid_size_inputs_valid_test",
        "dataset_impl",  # depends on the folder, see mos_fairseq.standalone.data
        "data_buffer_size",
        "valid_subset",
        "combine_valid_subsets",
        "ignore_unused_valid_subsets",
        "validate_interval",
        "validate_interval_updates",
        "validate_after_updates",
        "fixed_validation_seed",
        "disable_validation",
        "max_tokens_valid",
        "batch_size_valid",
        "max_valid_steps",
        "gen_subset",
        "num_shards",
        "shard_id",
    ),
    "optimization": ("debug_param_names",),
    "task": (
        "data",
        "dataset_impl",
        "eval_bleu",
        "eval_bleu_args",
        "eval_bleu_detok",
        "eval_bleu_detok_args",
        "eval_tokenized_bleu",
        "eval_bleu_remove_bpe",
        "eval_bleu_print_samples",
    ),
    "checkpoint": ("save_interval", "save_interval_updates", "keep_interval_updates", "keep_last_epochs"),
}
LENGTH = ("max_epoch", "max_update", "stop_time_hours", "stop_min_lr")
"""Fields for the length of a training, which is not taken from the supernet's: it is a number of updates."""


def fields_of(config: type, section: str) -> list[str]:
    """Return the fields of a section of class ``config`` that affect the outcome."""
    return _but((field.name for field in fields(config)), (*NEUTRAL.get(section, ()), *LENGTH))


def component_fields(section: str, name: str) -> list[str]:
    """Return the fields of the component ``name`` of one of ``COMPONENTS``."""
    registry = REGISTRIES[section]
    config = registry["dataclass_registry"].get(name)
    names = _legacy_fields(registry["registry"][name]) if config is None else [f.name for f in fields(config)]
    return _but(names, ())


def _but(names: Iterable[str], skipped: Sequence[str]) -> list[str]:
    return [name for name in names if not name.startswith("_") and name not in skipped]


def mandatory_fields(section: str, name: str) -> list[str]:
    """Return the required options of the component ``name``: they have no default."""
    config = REGISTRIES[section]["dataclass_registry"].get(name)
    return [] if config is None else [field.name for field in fields(config) if field.default == MISSING]


def _legacy_fields(component: type) -> list[str]:
    """Return the options of a component that declares them with argparse, as some of fairseq's optimizers do."""
    parser = argparse.ArgumentParser(add_help=False)
    if hasattr(component, "add_args"):
        component.add_args(parser)
    return [action.dest for action in parser._actions]


def plain(section: Any) -> dict[str, Any]:
    """Return a recorded section as a dictionary: fairseq records components without a dataclass as a namespace."""
    return dict(section if isinstance(section, Mapping) else vars(section)) if section else {}


class Command:
    """The parsed words of a ``fairseq-train`` command for a model of ``kind``.

    ``actions``: argparse's, by field.

    Raises:
        InputError: fairseq-train does not accept the words.
    """

    def __init__(self, kind: Kind, words: Sequence[str]) -> None:
        self._sections = SECTIONS | kind.sections
        with _quiet() as errors:
            try:
                parser = options.get_training_parser()
                self._args = options.parse_args_and_arch(parser, list(words))
            except SystemExit:
                reason = errors.getvalue().strip().split("\n")[-1]
                raise InputError(f"fairseq-train: {reason.partition('error: ')[2] or reason}") from None
            except ValueError as error:  # mutually exclusive options
                raise InputError(f"fairseq-train: {error}") from None
        self.actions = {action.dest: action for action in parser._actions}

    def fields_in(self, words: Sequence[str]) -> set[str]:
        """Return the fields that ``words`` set, under any of their options' names."""
        given = {word.partition("=")[0] for word in words if word.startswith("-")}
        return {field for field, action in self.actions.items() if given & set(action.option_strings)}

    def value(self, section: str, field: str) -> Any:
        """Return argparse's value of a field; for a model's options, which argparse leaves out, the default."""
        values = vars(self._args)
        return values[field] if field in values else getattr(self._sections[section](), field, None)

    def configuration(self) -> dict[str, dict[str, Any]]:
        """Return the configuration of the training, by section, as plain containers.

        Raises:
            InputError: fairseq cannot make a configuration from the words.
        """
        with _quiet():
            try:
                cfg = convert_namespace_to_omegaconf(self._args)
            except Exception as error:  # Hydra's own classes, whose text names the field
                raise InputError(f"fairseq-train: {' '.join(str(error).split())[:200]}") from None
        content: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
        read = (*self._sections, *COMPONENTS)
        return {section: plain(value) for section, value in content.items() if section in read}


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Suppress Hydra's warnings, and the usage of all fairseq options that argparse prints."""
    errors, disabled = io.StringIO(), logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stderr(errors):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield errors
        finally:
            logging.disable(disabled)
