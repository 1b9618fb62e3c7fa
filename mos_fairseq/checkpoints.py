"""Read the checkpoint of a supernet, and write the static twin of one subnet as a fairseq checkpoint."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from fairseq import checkpoint_utils, utils
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, MODEL_DATACLASS_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY
from omegaconf import OmegaConf

from mos_fairseq import criterions  # noqa: F401  registers them
from mos_fairseq.errors import InputError
from mos_fairseq.files import write_atomically
from mos_fairseq.models import SUPERNETS, StaticTwin, Supernet, placeholder_dictionary
from mos_fairseq.search_space import SearchSpace, Subnet, resolve_subnet
from mos_fairseq.tasks import CLASSES, CONTROLLER, MaskedLmMosTask, SupernetTask, answer_of, labels_of

_Kind = TypeVar("_Kind")


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a fairseq checkpoint, on the CPU; ``cfg`` as plain containers.

    Raises:
        InputError: the file cannot be read, or lacks a model or its configuration.
    """
    if not os.path.isfile(path):
        raise InputError(f"checkpoint {path}: no such file")
    unknown = InputError(f"checkpoint {path}: not a fairseq checkpoint with a model and its configuration")
    try:
        state = checkpoint_utils.load_checkpoint_to_cpu(str(path))
        cfg, weights = state.get("cfg"), state["model"]
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, RuntimeError, IndexError):  # from fairseq's upgrade of old formats
        raise unknown from None
    if cfg is None or not isinstance(weights, dict):
        raise unknown
    state["cfg"] = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True) if OmegaConf.is_config(cfg) else cfg
    return state


def read_supernet(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a supernet's checkpoint, as :func:`read_checkpoint`.

    Raises:
        InputError: the file cannot be read, or holds no supernet.
    """
    state = read_checkpoint(path)
    name, kind = _name_of(state, "model"), _supernet_class(state)
    if kind is None:
        hint = "; mos-warm-start makes a supernet of it" if ARCH_MODEL_NAME_REGISTRY.get(name) == "transformer" else ""
        archs = ", ".join(known.arch for known in SUPERNETS.values())
        raise InputError(f"checkpoint {path}: its arch is {name}, but only supernets ({archs}) have subnets{hint}")
    task = _name_of(state, "task")
    trains = (kind.task, *kind.other_tasks)
    if task not in trains:  # fairseq would set up any task named there
        raise InputError(f"checkpoint {path}: its task is {task}, but {name} is trained by {' or '.join(trains)}")
    if any(_table(stack.name) not in state["model"] for stack in kind.family.stacks):
        raise InputError(f"checkpoint {path}: its weights lack the embeddings")
    return state


def read_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a checkpoint from which a subnet can be exported.

    It holds a supernet, a supernet of which fairseq's own task fine-tuned one subnet, or a static twin (see
    :func:`is_twin`).

    Raises:
        InputError: the file cannot be read, or holds none of these.
    """
    state = read_checkpoint(path)
    kind, task = _twin_class(state) or _supernet_class(state), _name_of(state, "task")
    if kind is None or task not in _own_tasks(kind) or task == getattr(kind, "task", None):
        return read_supernet(path)  # its error names what the checkpoint holds instead
    if any(_table(stack.name) not in state["model"] for stack in kind.family.stacks):
        raise InputError(f"checkpoint {path}: its weights lack the embeddings")
    return state


def is_supernet(state: dict[str, Any]) -> bool:
    """Whether ``state`` is of a supernet."""
    return _supernet_class(state) is not None


def is_twin(state: dict[str, Any]) -> bool:
    """Return whether ``state`` holds a static twin."""
    return _twin_class(state) is not None


def _own_tasks(kind: type[Supernet] | type[StaticTwin]) -> tuple[str, ...]:
    """Return fairseq's own tasks for a model of class ``kind``.

    A static twin trains under them; a subnet of a supernet is fine-tuned and, for some families, pre-trained under
    them.
    """
    tasks = getattr(kind, "finetuning_tasks", ())
    if not tasks and not issubclass(kind, StaticTwin):
        return ()
    return (TASK_REGISTRY[SUPERNETS[kind.family.name].task].stock, *tasks)


def _name_of(state: dict[str, Any], section: str) -> str | None:
    """Return the name under which fairseq's registry holds the model or the task of ``state``."""
    found = state["cfg"].get(section)
    return found.get("_name") if isinstance(found, Mapping) else getattr(found, "_name", None)


def _supernet_class(state: dict[str, Any]) -> type[Supernet] | None:
    """Return the class of the supernet in ``state``; None if the model is not a supernet."""
    return {kind.arch: kind for kind in SUPERNETS.values()}.get(_name_of(state, "model") or "")


def _twin_class(state: dict[str, Any]) -> type[StaticTwin] | None:
    """Return the class of the static twin in ``state``; None if the model is not a static twin."""
    return {kind.twin.arch: kind.twin for kind in SUPERNETS.values()}.get(_name_of(state, "model") or "")


def _found(kind: _Kind | None, state: dict[str, Any]) -> _Kind:
    """Return ``kind``, the class of the model of ``state``. Raises RuntimeError if it is None."""
    if kind is None:
        name = _name_of(state, "model")
        raise RuntimeError(f"arch {name} has the wrong kind: use read_supernet or read_model, which check it")
    return kind


def _table(stack: str) -> str:
    return f"{stack}.embed_tokens.weight"


def _dictionary_sizes(state: dict[str, Any]) -> list[int]:
    """Return the number of entries of each stack's dictionary, read from the weights of a supernet."""
    kind = _supernet_class(state) or _found(_twin_class(state), state)
    return [len(state["model"][_table(stack.name)]) for stack in kind.family.stacks]


def search_space_of(state: dict[str, Any]) -> SearchSpace:
    """Return the search space of a supernet's checkpoint (see :func:`read_supernet`)."""
    return SearchSpace.from_spec(state["cfg"]["model"].get("search_space") or "")


def subnet_of(state: dict[str, Any], spec: str) -> Subnet:
    """Return the subnet named by ``spec`` of a supernet's checkpoint (see :func:`read_supernet`).

    ``spec`` is as in :func:`~mos_fairseq.search_space.resolve_subnet`; ``controller`` is the subnet chosen by the
    controller that was trained with the supernet.

    Raises:
        InputError: ``spec`` names no subnet, or the supernet was trained without a controller.
    """
    return answer_of(state.get("task_state")) if spec == CONTROLLER else resolve_subnet(spec, search_space_of(state))


def build_supernet(state: dict[str, Any]) -> Supernet:
    """Build the supernet of ``state`` (see :func:`read_supernet`) in eval mode, without its data.

    Only the sizes of its dictionaries are needed, which the weights show; the words are not.
    """
    kind = _found(_supernet_class(state), state)
    model = kind.from_search_space(_model_config(state), search_space_of(state), *_placeholders(state))
    model.load_state_dict(state["model"])
    return model.eval()


def build_twin(state: dict[str, Any]) -> StaticTwin:
    """Build the static twin of ``state`` (see :func:`read_model`) in eval mode, without its data.

    Raises:
        InputError: its configuration names no subnet.
    """
    cfg = _model_config(state)
    kind = _found(_twin_class(state), state)
    twin = kind.from_subnet(cfg, Subnet.from_text(cfg.subnet or "{}"), *_placeholders(state))
    twin.load_state_dict(state["model"])
    return twin.eval()


def _model_config(state: dict[str, Any]) -> Any:
    """Return the model's configuration, with the classification heads that the weights have."""
    config = MODEL_DATACLASS_REGISTRY[_name_of(state, "model")]
    cfg = config(**{k: v for k, v in _known(state["cfg"]["model"], config).items() if k != "_name"})
    if hasattr(cfg, "load_checkpoint_heads"):
        cfg.load_checkpoint_heads = True
    return cfg


def _placeholders(state: dict[str, Any]) -> list[Dictionary]:
    return [placeholder_dictionary(size) for size in _dictionary_sizes(state)]


def read_words(state: dict[str, Any], data: str | None = None) -> list[str]:
    """Return the words of the dictionary of the masked language model in ``state`` (see :func:`read_model`), in order.

    Args:
        data: as in :func:`read_vocabularies`.
    """
    if issubclass(_task_class(state), SupernetTask):
        return read_vocabularies(state, data)[0]
    folder = _data_folder(state, data)
    paths = [os.path.join(folder, *parts, "dict.txt") for parts in ((), ("input0",))]
    found = [path for path in paths if os.path.isfile(path)]
    if not found:
        raise InputError(f"data is {folder}: it lacks dict.txt")
    return _read_words(found[0], MaskedLmMosTask.added_symbols, _dictionary_sizes(state)[0], "model")


def read_labels(state: dict[str, Any], data: str | None = None) -> list[str]:
    """Return the class names of a classifier, in order; empty if it is fairseq's own and its data are gone.

    Raises:
        InputError: the folder ``data`` has others than its training.
    """
    recorded = (state.get("task_state") or {}).get(CLASSES, {}).get("labels")
    folder = next(iter(utils.split_paths(data or state["cfg"]["task"].get("data") or "")), "")
    if recorded and not data:
        return recorded
    found = labels_of(folder) if os.path.isfile(os.path.join(folder, "label", "dict.txt")) else []
    if recorded and found and found != recorded:
        raise InputError(f"data is {folder}: label/dict.txt is not the training's, {' '.join(recorded)} in this order")
    return recorded or found


def _data_folder(state: dict[str, Any], data: str | None) -> str:
    folder = next(iter(utils.split_paths(data or state["cfg"]["task"].get("data") or "")), "")
    if not os.path.isdir(folder):
        raise InputError(f"data is {folder or 'not given'}: no such folder (it holds the dictionaries)")
    return folder


def _read_words(path: str, added: Sequence[str], size: int, owner: str) -> list[str]:
    dictionary = Dictionary.load(path)
    for symbol in added:
        dictionary.add_symbol(symbol)
    if len(dictionary) != size:
        raise InputError(f"{path}: it has {len(dictionary)} words, the checkpoint's {owner} has {size}")
    return dictionary.symbols


def read_vocabularies(state: dict[str, Any], data: str | None = None) -> list[list[str]]:
    """Return the words of each stack's dictionary, in order, for a supernet or a static twin.

    Args:
        data: the folder of the dictionaries; default: the one that the supernet was trained on.

    Raises:
        InputError: the folder or a dictionary is missing, or its size differs from the supernet's.
    """
    task, folder = state["cfg"]["task"], _data_folder(state, data)
    family = (_supernet_class(state) or _found(_twin_class(state), state)).family
    kind = _task_class(state)
    if not issubclass(kind, SupernetTask):
        kind = TASK_REGISTRY[SUPERNETS[family.name].task]
    names = kind.dictionary_names(SimpleNamespace(**task), folder)
    words = []
    for name, stack, size in zip(names, family.stacks, _dictionary_sizes(state), strict=True):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise InputError(f"data is {folder}: it lacks {name}")
        words.append(_read_words(path, kind.added_symbols, size, stack.name))
    return words


def twin_checkpoint(state: dict[str, Any], twin: StaticTwin) -> dict[str, Any]:
    """Return a checkpoint of ``twin``, which was cut out of the supernet of ``state``.

    It is what ``fairseq-train`` with fairseq's own task would save, without optimizer state.
    """
    model = {f.name: getattr(twin.cfg, f.name) for f in fields(twin.cfg)} | {"_name": twin.arch}
    return model_checkpoint(state, model, twin.state_dict())


def stock_task(state: dict[str, Any]) -> str:
    """Return fairseq's own task that corresponds to the supernet task of ``state``."""
    task = _task_class(state)
    return task.stock if issubclass(task, SupernetTask) else _name_of(state, "task")


def _task_class(state: dict[str, Any]) -> type[SupernetTask]:
    return TASK_REGISTRY[_name_of(state, "task")]


def _stock_criterion(task: str | None) -> str:
    """Return fairseq's criterion in place of this package's in a training by ``task``, a supernet task or fairseq's
    own."""
    tasks = [name for kind in SUPERNETS.values() for name in (kind.task, *kind.other_tasks)]
    known = {name: TASK_REGISTRY[name] for name in tasks}
    found = {name: kind.stock_criterion for own, kind in known.items() for name in (own, kind.stock)}
    return found.get(task or "", SupernetTask.stock_criterion)


def is_ours(component: type | None) -> bool:
    """Return whether a component found in fairseq's registries comes from this package."""
    return component is not None and component.__module__.startswith("mos_fairseq.")


def model_checkpoint(
    state: dict[str, Any], model_cfg: Any, weights: dict[str, torch.Tensor], task: str | None = None
) -> dict[str, Any]:
    """Return a checkpoint of a model that replaces the one in the run of ``state``.

    Args:
        task: fairseq's own task for the model (default: :func:`stock_task`).
    """
    # fairseq keeps components without a dataclass, such as sgd, in namespaces, which torch's safe reader refuses
    cfg = {name: vars(part) if isinstance(part, Namespace) else part for name, part in state["cfg"].items()}
    task = task or stock_task(state)
    cfg["model"] = model_cfg
    cfg["task"] = _known(cfg["task"], TASK_DATACLASS_REGISTRY[task]) | {"_name": task}
    criterion = cfg.get("criterion") or {}
    if is_ours(CRITERION_REGISTRY.get(criterion.get("_name"))):
        name = _stock_criterion(_name_of(state, "task"))
        options = _known(criterion, CRITERION_DATACLASS_REGISTRY[name])
        cfg["criterion"] = options | {"_name": name}
    # fairseq reads a history and a train iterator even with both resets
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": updates_of(state)}
    return {
        "args": None,
        "cfg": cfg,
        "model": _copies(weights),
        "criterion": None,
        "optimizer_history": [history],
        "task_state": {key: value for key, value in (state.get("task_state") or {}).items() if key == CLASSES},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0, "shuffle": True}},
    }


def updates_of(state: dict[str, Any]) -> int:
    """Return the number of updates that trained the model of ``state``."""
    return (state.get("optimizer_history") or [{}])[-1].get("num_updates", 0)


def _known(section: Mapping[str, Any], config: type) -> dict[str, Any]:
    """Return the options of a configuration ``section`` that are fields of ``config``, a component's dataclass."""
    names = {field.name for field in fields(config)}
    return {key: value for key, value in section.items() if key in names}


def _copies(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return contiguous copies; tables that share memory are copied once."""
    copies: dict[tuple, torch.Tensor] = {}
    result = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if key not in copies:
            copies[key] = tensor.detach().clone(memory_format=torch.contiguous_format)
        result[name] = copies[key]
    return result


def save_checkpoint(checkpoint: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint atomically: a reader sees the old file or the whole new one.

    Raises:
        InputError: the file cannot be written.
    """
    write_atomically(path, lambda file: torch.save(checkpoint, file))
