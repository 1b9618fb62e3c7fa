"""Under which of fairseq's commands the options of ``translation_mos`` act; elsewhere they are refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from omegaconf import OmegaConf

from mos_fairseq.command import COMMANDS, Command
from mos_fairseq.errors import InputError

_READS_PAIRS = ("train", "generate", "validate")
_VALIDATES = ("train", "validate")

# Every option of the task, fairseq's own first; those of other parts of the configuration (--seed, --train-subset, ...)
# are not the task's. Our own commands (mos-search, ...) take none of them.
ACTS: dict[str, tuple[str, ...]] = {
    "data": COMMANDS,
    "source_lang": COMMANDS,
    "target_lang": COMMANDS,
    "load_alignments": _VALIDATES,  # a criterion reads them
    "left_pad_source": _READS_PAIRS,  # fairseq-interactive pads on the left
    "left_pad_target": _READS_PAIRS,
    "max_source_positions": COMMANDS,
    "max_target_positions": _READS_PAIRS,
    "upsample_primary": ("train",),
    "truncate_source": _READS_PAIRS,
    "num_batch_buckets": _READS_PAIRS,
    "eval_bleu": _VALIDATES,
    "eval_bleu_args": _VALIDATES,
    "eval_bleu_detok": _VALIDATES,
    "eval_bleu_detok_args": _VALIDATES,
    "eval_tokenized_bleu": _VALIDATES,
    "eval_bleu_remove_bpe": _VALIDATES,
    "eval_bleu_print_samples": _VALIDATES,
    "search_space": COMMANDS,  # compared with the checkpoint's
    "subnet_sampling": ("train",),
    "num_random_subnets": ("train",),
    "elastic_from": ("train",),
    "subnets_per_rank": ("train",),
    "subnet": COMMANDS,
    "valid_subnets": _VALIDATES,
}

# option -> (command or None for every one, the other option that it depends on, the values of that with which it acts);
# the task itself refuses --subnets-per-rank and --elastic-from where nothing is drawn
NEEDS: dict[str, tuple[str | None, str, tuple[Any, ...]]] = {
    "num_random_subnets": ("train", "subnet_sampling", ("sandwich", "random")),
    "subnet": ("train", "subnet_sampling", ("fixed",)),
    "eval_bleu_args": (None, "eval_bleu", (True,)),
    "eval_bleu_detok": (None, "eval_bleu", (True,)),
    "eval_bleu_detok_args": (None, "eval_bleu", (True,)),
    "eval_tokenized_bleu": (None, "eval_bleu", (True,)),
    "eval_bleu_remove_bpe": (None, "eval_bleu", (True,)),
    "eval_bleu_print_samples": (None, "eval_bleu", (True,)),
}


def given_options(cfg: Any, command: Command) -> list[str]:
    """Options of the task that the user gave: named on the command line, or not at their default.

    fairseq-validate takes the task's configuration from the checkpoint, where they may be from training: there only the
    options that override the checkpoint's count.
    """
    found = []
    for option in fields(OmegaConf.get_type(cfg) if OmegaConf.is_config(cfg) else cfg):
        if option.name in ACTS:
            value = getattr(cfg, option.name)
            changed = command.name != "validate" and str(value) != str(option.default)
            if changed or command.is_given(option.name):
                found.append(option.name)
    return found


def check_options(cfg: Any, command: Command) -> None:
    """Raise InputError for the first option that is given and has no effect."""
    given = given_options(cfg, command)
    for name in given:
        value = getattr(cfg, name)
        if command.name not in ACTS[name]:
            acts = ", ".join(f"fairseq-{other}" for other in ACTS[name])
            raise InputError(f"{name} is {value}: it has no effect in fairseq-{command.name}, only in {acts}")
        only_in, other, allowed = NEEDS.get(name, (None, name, (value,)))
        if only_in in (None, command.name) and (found := _plain(getattr(cfg, other))) not in map(_plain, allowed):
            values = ", ".join(str(choice) for choice in allowed)
            raise InputError(f"{name} is {value}: it has no effect with {other} {found}, only with {values}")
    if command.name == "validate" and {"subnet", "valid_subnets"} <= set(given):
        raise InputError(
            f"subnet is {cfg.subnet} and valid_subnets is {cfg.valid_subnets}: both say what fairseq-validate "
            "measures, give one of them"
        )


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool) else str(value)
