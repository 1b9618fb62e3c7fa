"""Reading a supernet's checkpoint, and writing the static twin of one subnet as a fairseq checkpoint."""

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
from mos_fairseq.tasks import CONTROLLER, MaskedLmMosTask, SupernetTask, answer_of

_Kind = TypeVar("_Kind")


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a fairseq checkpoint, on the CPU; ``cfg`` as plain containers.

    Raises:
        InputError: the file cannot be read, or holds no model with its configuration.
    """
    if not os.path.isfile(path):
        raise InputError(f"checkpoint {path}: no such file")
    unknown = InputError(f"checkpoint {path}: it is not one of fairseq's, with a model and its configuration")
    try:
        state = checkpoint_utils.load_checkpoint_to_cpu(str(path))
        cfg, weights = state.get("cfg"), state["model"]
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, RuntimeError, IndexError):  # from fairseq's upgrade of old forms
        raise unknown from None
    if cfg is None or not isinstance(weights, dict):
        raise unknown
    state["cfg"] = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True) if OmegaConf.is_config(cfg) else cfg
    return state


def read_supernet(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a supernet's checkpoint, as :func:`read_checkpoint`.

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
    if task != kind.task:  # fairseq would set up whatever stands there
        raise InputError(f"checkpoint {path}: its task is {task}, but {name} is trained by {kind.task}")
    if any(_table(stack.name) not in state["model"] for stack in kind.family.stacks):
        raise InputError(f"checkpoint {path}: its weights lack the embeddings")
    return state


def read_model(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint from which a subnet can be exported: of a supernet, also of one of which a subnet was
    fine-tuned by fairseq's own task, or of a static twin (see :func:`is_twin`).

    Raises:
        InputError: the file cannot be read, or holds neither.
    """
    state = read_checkpoint(path)
    kind, task = _twin_class(state) or _supernet_class(state), _name_of(state, "task")
    if kind is None or task not in _own_tasks(kind) or task == getattr(kind, "task", None):
        return read_supernet(path)  # tells what it is instead, if it is none
    if any(_table(stack.name) not in state["model"] for stack in kind.family.stacks):
        raise InputError(f"checkpoint {path}: its weights lack the embeddings")
    return state


def is_supernet(state: dict[str, Any]) -> bool:
    """Whether ``state`` is of a supernet."""
    return _supernet_class(state) is not None


def is_twin(state: dict[str, Any]) -> bool:
    """Whether ``state`` is of a static twin."""
    return _twin_class(state) is not None


def _own_tasks(kind: type[Supernet] | type[StaticTwin]) -> tuple[str, ...]:
    """fairseq's own tasks under which a static twin trains; and those under which a supernet's subnet is fine-tuned,
    and, if there are some, pre-trained."""
    tasks = getattr(kind, "finetuning_tasks", ())
    if not tasks and not issubclass(kind, StaticTwin):
        return ()
    return (TASK_REGISTRY[SUPERNETS[kind.family.name].task].stock, *tasks)


def _name_of(state: dict[str, Any], section: str) -> str | None:
    """What fairseq's registry calls the model or the task of ``state``."""
    found = state["cfg"].get(section)
    return found.get("_name") if isinstance(found, Mapping) else getattr(found, "_name", None)


def _supernet_class(state: dict[str, Any]) -> type[Supernet] | None:
    """The class of the supernet of ``state``; None where the model is none."""
    return {kind.arch: kind for kind in SUPERNETS.values()}.get(_name_of(state, "model") or "")


def _twin_class(state: dict[str, Any]) -> type[StaticTwin] | None:
    """The class of the static twin of ``state``; None where the model is none."""
    return {kind.twin.arch: kind.twin for kind in SUPERNETS.values()}.get(_name_of(state, "model") or "")


def _found(kind: _Kind | None, state: dict[str, Any]) -> _Kind:
    """``kind``, the class of the model of ``state``. Raises RuntimeError where it is None."""
    if kind is None:
        name = _name_of(state, "model")
        raise RuntimeError(f"arch {name} is of another kind: read_supernet and read_model say so of its checkpoint")
    return kind


def _table(stack: str) -> str:
    return f"{stack}.embed_tokens.weight"


def _dictionary_sizes(state: dict[str, Any]) -> list[int]:
    """Entries of each stack's dictionary, which the weights of a supernet tell."""
    kind = _supernet_class(state) or _found(_twin_class(state), state)
    return [len(state["model"][_table(stack.name)]) for stack in kind.family.stacks]


def search_space_of(state: dict[str, Any]) -> SearchSpace:
    """The search space of a supernet's checkpoint (see :func:`read_supernet`)."""
    return SearchSpace.from_spec(state["cfg"]["model"].get("search_space") or "")


def subnet_of(state: dict[str, Any], spec: str) -> Subnet:
    """The subnet of a supernet's checkpoint (see :func:`read_supernet`) that ``spec`` names: as
    :func:`~mos_fairseq.search_space.resolve_subnet`, and ``controller`` for the answer of the controller that trained
    it.

    Raises:
        InputError: it names none, or no controller trained the supernet.
    """
    return answer_of(state.get("task_state")) if spec == CONTROLLER else resolve_subnet(spec, search_space_of(state))


def build_supernet(state: dict[str, Any]) -> Supernet:
    """The supernet of ``state`` (see :func:`read_supernet`) in eval mode, without its data.

    The words of its dictionaries are not needed, only their number, which the weights tell.
    """
    kind = _found(_supernet_class(state), state)
    model = kind.from_search_space(_model_config(state), search_space_of(state), *_placeholders(state))
    model.load_state_dict(state["model"])
    return model.eval()


def build_twin(state: dict[str, Any]) -> StaticTwin:
    """The static twin of ``state`` (see :func:`read_model`) in eval mode, without its data.

    Raises:
        InputError: its configuration names no subnet.
    """
    cfg = _model_config(state)
    kind = _found(_twin_class(state), state)
    twin = kind.from_subnet(cfg, Subnet.from_text(cfg.subnet or "{}"), *_placeholders(state))
    twin.load_state_dict(state["model"])
    return twin.eval()


def _model_config(state: dict[str, Any]) -> Any:
    """The configuration of the model of ``state``, with the classification heads that the weights have."""
    config = MODEL_DATACLASS_REGISTRY[_name_of(state, "model")]
    cfg = config(**{k: v for k, v in _known(state["cfg"]["model"], config).items() if k != "_name"})
    if hasattr(cfg, "load_checkpoint_heads"):
        cfg.load_checkpoint_heads = True
    return cfg


def _placeholders(state: dict[str, Any]) -> list[Dictionary]:
    return [placeholder_dictionary(size) for size in _dictionary_sizes(state)]


def read_words(state: dict[str, Any], data: str | None = None) -> list[str]:
    """The words of the one dictionary of a masked language model of ``state`` (see :func:`read_model`), in order.

    Args:
        data: as of :func:`read_vocabularies`.
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
    """Names of the classes of a model that was fine-tuned to tell them, in order; none where its data are gone."""
    folder = next(iter(utils.split_paths(data or state["cfg"]["task"].get("data") or "")), "")
    path = os.path.join(folder, "label", "dict.txt")
    if not os.path.isfile(path):
        return []
    labels = Dictionary.load(path)
    return labels.symbols[labels.nspecial :]


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
    """The words of the dictionary of each stack of a supernet or a static twin, in order.

    Args:
        data: the folder that holds the dictionaries; default: the one that the supernet was trained on.

    Raises:
        InputError: the folder or a dictionary is missing, or is not of the supernet's size.
    """
    task, folder = state["cfg"]["task"], _data_folder(state, data)
    family = (_supernet_class(state) or _found(_twin_class(state), state)).family
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
    """A checkpoint of ``twin``, cut out of the supernet of ``state``: what ``fairseq-train`` would have saved of it
    with fairseq's own task, without optimizer state."""
    model = {f.name: getattr(twin.cfg, f.name) for f in fields(twin.cfg)} | {"_name": twin.arch}
    return model_checkpoint(state, model, twin.state_dict())


def stock_task(state: dict[str, Any]) -> str:
    """fairseq's own task in the place of the supernet's of ``state``."""
    task = _task_class(state)
    return task.stock if issubclass(task, SupernetTask) else _name_of(state, "task")


def _task_class(state: dict[str, Any]) -> type[SupernetTask]:
    return TASK_REGISTRY[_name_of(state, "task")]


def is_ours(component: type | None) -> bool:
    """Whether what fairseq's registries hold under a name is of this package."""
    return component is not None and component.__module__.startswith("mos_fairseq.")


def model_checkpoint(
    state: dict[str, Any], model_cfg: Any, weights: dict[str, torch.Tensor], task: str | None = None
) -> dict[str, Any]:
    """A checkpoint of a model that takes another's place in the run of ``state``.

    Args:
        task: fairseq's own that the model is for (default: :func:`stock_task`).
    """
    # fairseq keeps components without a dataclass, as its sgd, in namespaces, which torch's safe reader does not take
    cfg = {name: vars(part) if isinstance(part, Namespace) else part for name, part in state["cfg"].items()}
    task = task or stock_task(state)
    cfg["model"] = model_cfg
    cfg["task"] = _known(cfg["task"], TASK_DATACLASS_REGISTRY[task]) | {"_name": task}
    criterion = cfg.get("criterion") or {}
    if is_ours(CRITERION_REGISTRY.get(criterion.get("_name"))):
        name = _task_class(state).stock_criterion
        options = _known(criterion, CRITERION_DATACLASS_REGISTRY[name])
        cfg["criterion"] = options | {"_name": name}
    # fairseq reads a history and a train iterator even where it is told to reset both
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": updates_of(state)}
    return {
        "args": None,
        "cfg": cfg,
        "model": _copies(weights),
        "criterion": None,
        "optimizer_history": [history],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0, "shuffle": True}},
    }


def updates_of(state: dict[str, Any]) -> int:
    """The updates that trained the model of ``state``."""
    return (state.get("optimizer_history") or [{}])[-1].get("num_updates", 0)


def _known(section: Mapping[str, Any], config: type) -> dict[str, Any]:
    """The options of a ``section`` of the configuration that a component with ``config`` has."""
    names = {field.name for field in fields(config)}
    return {key: value for key, value in section.items() if key in names}


def _copies(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous copies, tables that share memory copied once."""
    copies: dict[tuple, torch.Tensor] = {}
    result = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if key not in copies:
            copies[key] = tensor.detach().clone(memory_format=torch.contiguous_format)
        result[name] = copies[key]
    return result


def save_checkpoint(checkpoint: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint, so that a reader sees the old file or the whole new one.

    Raises:
        InputError: the file cannot be written.
    """
    write_atomically(path, lambda file: torch.save(checkpoint, file))
