"""Reading a supernet's checkpoint, and writing the static twin of one subnet as a fairseq checkpoint."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

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
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.tasks import SupernetTask


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


def _name_of(state: dict[str, Any], section: str) -> str | None:
    """What fairseq's registry calls the model or the task of ``state``."""
    found = state["cfg"].get(section)
    return found.get("_name") if isinstance(found, Mapping) else getattr(found, "_name", None)


def _supernet_class(state: dict[str, Any]) -> type[Supernet] | None:
    """The class of the supernet of ``state``; None where the model is none."""
    return {kind.arch: kind for kind in SUPERNETS.values()}.get(_name_of(state, "model"))


def _table(stack: str) -> str:
    return f"{stack}.embed_tokens.weight"


def _dictionary_sizes(state: dict[str, Any]) -> list[int]:
    """Entries of each stack's dictionary, which the weights of a supernet tell."""
    return [len(state["model"][_table(stack.name)]) for stack in _supernet_class(state).family.stacks]


def search_space_of(state: dict[str, Any]) -> SearchSpace:
    """The search space of a supernet's checkpoint (see :func:`read_supernet`)."""
    return SearchSpace.from_spec(state["cfg"]["model"].get("search_space") or "")


def build_supernet(state: dict[str, Any]) -> Supernet:
    """The supernet of ``state`` (see :func:`read_supernet`) in eval mode, without its data.

    The words of its dictionaries are not needed, only their number, which the weights tell.
    """
    kind = _supernet_class(state)
    config = MODEL_DATACLASS_REGISTRY[kind.arch]
    cfg = config(**{k: v for k, v in _known(state["cfg"]["model"], config).items() if k != "_name"})
    words = [placeholder_dictionary(size) for size in _dictionary_sizes(state)]
    model = kind.from_search_space(cfg, search_space_of(state), *words)
    model.load_state_dict(state["model"])
    return model.eval()


def read_vocabularies(state: dict[str, Any], data: str | None = None) -> list[list[str]]:
    """The words of the dictionary of each stack of a supernet, in order.

    Args:
        data: the folder that holds the dictionaries; default: the one that the supernet was trained on.

    Raises:
        InputError: the folder or a dictionary is missing, or is not of the supernet's size.
    """
    task = state["cfg"]["task"]
    folder = next(iter(utils.split_paths(data or task.get("data") or "")), "")
    if not os.path.isdir(folder):
        raise InputError(f"data is {folder or 'not given'}: no such folder (it holds the dictionaries)")
    kind = _task_class(state)
    names = kind.dictionary_names(SimpleNamespace(**task), folder)
    words = []
    for name, stack, size in zip(names, _supernet_class(state).family.stacks, _dictionary_sizes(state), strict=True):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise InputError(f"data is {folder}: it lacks {name}")
        dictionary = Dictionary.load(path)
        for symbol in kind.added_symbols:
            dictionary.add_symbol(symbol)
        symbols = dictionary.symbols
        if len(symbols) != size:
            raise InputError(f"{path}: it has {len(symbols)} words, the checkpoint's {stack.name} has {size}")
        words.append(symbols)
    return words


def twin_checkpoint(state: dict[str, Any], twin: StaticTwin) -> dict[str, Any]:
    """A checkpoint of ``twin``, cut out of the supernet of ``state``: what ``fairseq-train`` would have saved of it
    with fairseq's own task, without optimizer state."""
    model = {f.name: getattr(twin.cfg, f.name) for f in fields(twin.cfg)} | {"_name": twin.arch}
    return model_checkpoint(state, model, twin.state_dict())


def stock_task(state: dict[str, Any]) -> str:
    """fairseq's own task in the place of the supernet's of ``state``."""
    return _task_class(state).stock


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
