"""Repairs to fairseq's enumerations and tasks, so that models, tasks and criterions can be pickled."""

from __future__ import annotations

import copyreg
from typing import Any

from fairseq.dataclass.constants import ChoiceEnum, StrEnumMeta
from fairseq.tasks.fairseq_task import StatefulContainer


def let_models_be_pickled() -> None:
    """Let models, tasks and criterions be pickled: for ``torch.save(model)``, and to go to a spawned process.

    ``ChoiceEnum`` makes classes that are called ``Choices`` and stand in no module, where pickle looks for them.
    omegaconf's configurations refer to those of their options, and models, tasks and criterions to a configuration.
    A task's state asks itself for its own attributes before it has any, without an end.
    """
    copyreg.pickle(StrEnumMeta, _reduce_enumeration)
    copyreg.pickle(StatefulContainer, _reduce_state)


def _reduce_enumeration(enumeration: Any) -> Any:
    """How to make the class again: by its name where it has one, by its choices otherwise."""
    if enumeration.__qualname__ != "Choices":
        return enumeration.__qualname__
    return ChoiceEnum, ([choice.value for choice in enumeration],)


def _reduce_state(container: StatefulContainer) -> Any:
    return _filled, (container._state, container._factories)


def _filled(state: dict[str, Any], factories: dict[str, Any]) -> StatefulContainer:
    container = StatefulContainer()
    container.merge_state_dict(state)
    for name, factory in factories.items():
        container.add_factory(name, factory)
    return container
