"""What a model of one family is when it trains alone: a static twin, by fairseq's own task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY

from mos_fairseq.models import SUPERNETS
from mos_fairseq.models.transformer_config import RobertaBaseConfig, TransformerBaseConfig

_MODELS = {"encoder_decoder": TransformerBaseConfig, "encoder_only": RobertaBaseConfig}
"""Configurations that a supernet and its twin have in common."""

FAMILIES = tuple(_MODELS)
"""Those whose models train alone."""


@dataclass(frozen=True)
class Kind:
    """Names as fairseq has them.

    Args:
        task: fairseq's own.
        arch: of the static twin.
        criterion: fairseq's own, in the place of those of this package.
        model: configuration that the twin has in common with the supernet.
    """

    task: str
    arch: str
    criterion: str
    model: type

    @property
    def sections(self) -> dict[str, type]:
        """The parts of the configuration that depend on the kind."""
        return {"task": TASK_DATACLASS_REGISTRY[self.task], "model": self.model}

    @property
    def command(self) -> tuple[str, ...]:
        """Words of the command of every such model."""
        return ("--task", self.task, "--arch", self.arch)


def kind_of(cfg: Mapping[str, Any]) -> Kind:
    """Of the subnets of the supernet with the configuration ``cfg`` of a family of ``FAMILIES``."""
    supernet = next(kind for kind in SUPERNETS.values() if kind.arch == cfg["model"]["_name"])
    task = TASK_REGISTRY[supernet.task]
    return Kind(task.stock, supernet.twin.arch, task.stock_criterion, _MODELS[supernet.family.name])
