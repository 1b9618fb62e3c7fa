"""Repairs to fairseq's enumerations and tasks, so that models, tasks and criterions can be pickled."""

from __future__ import annotations

import copyreg
from typing import Any

from fairseq.dataclass.constants import ChoiceEnum, StrEnumMeta
from fairseq.tasks.fairseq_task import StatefulContainer


def let_models_be_pickled() -> None:
    """Let models, tasks and criterions be pickled, for ``torch.save(model)`` and for spawned processes.

    ``ChoiceEnum`` makes classes that are called ``Choices`` and belong to no module, where pickle looks for them.
    omegaconf's configurations refer to these classes, and models, tasks and criterions refer to a configuration. A
    task's state looks up its own attributes before it has any, in an endless recursion.
    """
    copyreg.pickle(StrEnumMeta, _reduce_enumeration)
    copyreg.pickle(StatefulContainer, _reduce_state)


def _reduce_enumeration(enumeration: Any) -> Any:
    """Return how to rebuild the class: by its name if it has one, otherwise by its choices."""
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
