"""The fairseq commands in which each option of a task has an effect; elsewhere the option is refused."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import OmegaConf

from mos_fairseq.command import Command
from mos_fairseq.errors import InputError
from mos_fairseq.tasks.controller import CONTROLLER
from mos_fairseq.tasks.subnet_sampling import DRAWING, UNIFORM, WITH_SMALLEST

Need = tuple[str | None, str, Collection[Any]]
"""(command or None for all, another option that an option depends on, values of that option with which it acts)."""
FROM_ONE_UP = range(1, sys.maxsize)

VALIDATES = ("train", "validate")
_OF_CONTROLLER = tuple(f"controller_{name}" for name in ("budget", "from", "interval", "samples", "uniform", "subset"))
_OF_ROUNDS = ("local_average", "local_moments")


@dataclass(frozen=True)
class OptionTable:
    """Every option of a task, including fairseq's own. Options of other parts of the configuration (``--seed``,
    ``--train-subset``, ...) are not the task's. The ``mos-`` commands have none of them.

    Args:
        acts: for each option, the commands in which it has an effect, without ``fairseq-``; empty if supernets do not
            offer it.
        needs: further conditions for an option's effect.
    """

    acts: Mapping[str, tuple[str, ...]]
    needs: Mapping[str, Need]

    def given(self, cfg: Any, command: Command) -> list[str]:
        """Return the task's options that the user gave: named on the command line, or not at their default.

        fairseq-validate takes the task's configuration from the checkpoint, where options may come from training.
        There, only options that override the checkpoint count.
        """
        found = []
        kind: Any = OmegaConf.get_type(cfg) if OmegaConf.is_config(cfg) else cfg
        for option in fields(kind):
            if option.name in self.acts:
                value = getattr(cfg, option.name)
                changed = command.name != "validate" and str(value) != str(option.default)
                if changed or command.is_given(option.name):
                    found.append(option.name)
        return found

    def check(self, cfg: Any, command: Command) -> None:
        """Raise InputError for the first given option without effect."""
        given = self.given(cfg, command)
        never_validates = command.name == "train" and command.is_given("disable_validation")
        for name in given:
            value = getattr(cfg, name)
            if never_validates and (name == "valid_subnets" or name.startswith("eval_")):
                raise InputError(f"{name} is {value}: it has no effect with --disable-validation")
            if command.name not in self.acts[name]:
                if not self.acts[name]:
                    raise InputError(f"{name} is {value}: it is not offered for supernets")
                acts = ", ".join(f"fairseq-{other.replace('_', '-')}" for other in self.acts[name])
                here = f"fairseq-{command.name.replace('_', '-')}"
                raise InputError(f"{name} is {value}: it has no effect in {here}, only in {acts}")
            only_in, other, allowed = self.needs.get(name, (None, name, (value,)))
            found = getattr(cfg, other)
            if only_in in (None, command.name) and not _is_among(found, allowed):
                values = "1 and more" if allowed == FROM_ONE_UP else ", ".join(str(choice) for choice in allowed)
                raise InputError(f"{name} is {value}: it has no effect with {other} {found}, only with {values}")
        if command.name == "validate" and {"subnet", "valid_subnets"} <= set(given):
            raise InputError(
                f"subnet is {cfg.subnet} and valid_subnets is {cfg.valid_subnets}: both say what fairseq-validate "
                "measures, give one of them"
            )


def supernet_options(commands: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], dict[str, Need]]:
    """Return the parts of :class:`OptionTable` for the options that all supernets' tasks have.

    The task itself refuses --subnets-per-rank and --elastic-from if no subnet is drawn.

    Args:
        commands: fairseq's commands that support the task.
    """
    acts = {
        "search_space": commands,  # checked against the checkpoint's
        "subnet_sampling": ("train",),
        "num_random_subnets": ("train",),
        "cost_strata": ("train",),
        "smallest_interval": ("train",),
        "largest_until": ("train",),
        **dict.fromkeys(_OF_CONTROLLER, ("train",)),
        "elastic_from": ("train",),
        "subnets_per_rank": ("train",),
        "shard_data": ("train",),
        **dict.fromkeys(("local_updates", *_OF_ROUNDS), ("train",)),
        "subnet": commands,
        "valid_subnets": VALIDATES,
    }
    needs: dict[str, Need] = {
        "num_random_subnets": ("train", "subnet_sampling", DRAWING),
        "cost_strata": ("train", "subnet_sampling", UNIFORM),
        "smallest_interval": ("train", "subnet_sampling", WITH_SMALLEST),
        "largest_until": ("train", "subnet_sampling", ("decay",)),
        **{name: ("train", "subnet_sampling", (CONTROLLER,)) for name in _OF_CONTROLLER},
        **{name: ("train", "local_updates", FROM_ONE_UP) for name in _OF_ROUNDS},
        "subnet": ("train", "subnet_sampling", ("fixed",)),
    }
    return acts, needs


def _is_among(value: Any, allowed: Collection[Any]) -> bool:
    return value in allowed if isinstance(allowed, range) else _plain(value) in map(_plain, allowed)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool) else str(value)
