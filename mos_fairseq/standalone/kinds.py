"""The kinds of standalone models: a family's static twin, trained by fairseq's own task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY

from mos_fairseq.errors import InputError
from mos_fairseq.models import SUPERNETS
from mos_fairseq.models.transformer_config import RobertaBaseConfig, TransformerBaseConfig

_MODELS = {"encoder_decoder": TransformerBaseConfig, "encoder_only": RobertaBaseConfig}
"""Model configurations shared by a supernet and its twin."""

FAMILIES = tuple(_MODELS)
"""Families whose models can train alone."""


@dataclass(frozen=True)
class Kind:
    """fairseq's names for one kind of model.

    Args:
        task: fairseq's own task.
        arch: name of the static twin.
        criterion: fairseq's own criterion, in place of this package's.
        model: configuration shared by the twin and the supernet.
    """

    task: str
    arch: str
    criterion: str
    model: type

    @property
    def sections(self) -> dict[str, type]:
        """The sections of the configuration that depend on the kind."""
        return {"task": TASK_DATACLASS_REGISTRY[self.task], "model": self.model}

    @property
    def command(self) -> tuple[str, ...]:
        """Words in the command of every such model."""
        return ("--task", self.task, "--arch", self.arch)


def kind_of(cfg: Mapping[str, Any]) -> Kind:
    """Return the kind of the subnets of a supernet with the configuration ``cfg`` and a family of ``FAMILIES``.

    Raises:
        InputError: it is a supernet of classifiers.
    """
    supernet = next(kind for kind in SUPERNETS.values() if kind.arch == cfg["model"]["_name"])
    if (trained := cfg.get("task", {}).get("_name")) in supernet.other_tasks:
        stock = TASK_REGISTRY[trained].stock
        raise InputError(
            f"task is {trained}: its subnets train on by fairseq-train --task {stock}, from a file of mos-export; "
            f"this command trains those of {supernet.task}"
        )
    task = TASK_REGISTRY[supernet.task]
    return Kind(task.stock, supernet.twin.arch, task.stock_criterion, _MODELS[supernet.family.name])
