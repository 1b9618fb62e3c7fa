"""Reading a supernet's checkpoint, and writing the static twin of one subnet as a fairseq checkpoint."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import torch
from fairseq import checkpoint_utils, utils
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from fairseq.data import Dictionary
from fairseq.data.data_utils import infer_language_pair
from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from fairseq.tasks.translation import TranslationConfig
from omegaconf import OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.files import write_atomically
from mos_fairseq.models import TransformerMosConfig, TransformerMosModel, TransformerSubnetModel, placeholder_dictionary

ARCH, TASK = "transformer_mos", "translation_mos"


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
        InputError: the file cannot be read, or holds no ``transformer_mos`` supernet.
    """
    state = read_checkpoint(path)
    weights = state["model"]
    model = state["cfg"].get("model")
    name = model.get("_name") if isinstance(model, dict) else getattr(model, "_name", None)
    if name != ARCH:
        hint = "; mos-warm-start makes a supernet of it" if ARCH_MODEL_NAME_REGISTRY.get(name) == "transformer" else ""
        raise InputError(f"checkpoint {path}: its arch is {name}, but only supernets ({ARCH}) have subnets{hint}")
    task = state["cfg"].get("task")
    task_name = task.get("_name") if isinstance(task, dict) else getattr(task, "_name", None)
    if task_name != TASK:  # fairseq would set up whatever stands there
        raise InputError(f"checkpoint {path}: its task is {task_name}, but supernets are trained by {TASK}")
    if "encoder.embed_tokens.weight" not in weights or "decoder.embed_tokens.weight" not in weights:
        raise InputError(f"checkpoint {path}: its weights lack the embeddings")
    return state


def build_supernet(state: dict[str, Any]) -> TransformerMosModel:
    """The supernet of ``state`` (see :func:`read_supernet`) in eval mode, without its data.

    The words of its dictionaries are not needed, only their number, which the weights tell.
    """
    known = {field.name for field in fields(TransformerMosConfig)}
    cfg = TransformerMosConfig(**{k: v for k, v in state["cfg"]["model"].items() if k in known and k != "_name"})
    weights = state["model"]
    sizes = [len(weights[f"{side}.embed_tokens.weight"]) for side in ("encoder", "decoder")]
    src_dict, tgt_dict = (placeholder_dictionary(size) for size in sizes)
    model = TransformerMosModel.build_model(
        cfg, SimpleNamespace(source_dictionary=src_dict, target_dictionary=tgt_dict)
    )
    model.load_state_dict(weights)
    return model.eval()


def read_vocabularies(state: dict[str, Any], data: str | None = None) -> tuple[list[str], list[str]]:
    """The words of the source and the target dictionary of a supernet, in order.

    Args:
        data: the folder that holds the dictionaries; default: the one that the supernet was trained on.

    Raises:
        InputError: the folder or a dictionary is missing, or is not of the supernet's size.
    """
    task = state["cfg"]["task"]
    folder = next(iter(utils.split_paths(data or task.get("data") or "")), "")
    if not os.path.isdir(folder):
        raise InputError(f"data is {folder or 'not given'}: no such folder (it holds the dictionaries)")
    languages = [task.get("source_lang"), task.get("target_lang")]
    if None in languages:
        languages = infer_language_pair(folder)
    words = []
    for language, side in zip(languages, ("encoder", "decoder"), strict=True):
        path, size = os.path.join(folder, f"dict.{language}.txt"), len(state["model"][f"{side}.embed_tokens.weight"])
        if not os.path.isfile(path):
            raise InputError(f"data is {folder}: it lacks dict.{language}.txt")
        symbols = Dictionary.load(path).symbols
        if len(symbols) != size:
            raise InputError(f"{path}: it has {len(symbols)} words, the checkpoint's {side} has {size}")
        words.append(symbols)
    return words[0], words[1]


def twin_checkpoint(state: dict[str, Any], twin: TransformerSubnetModel) -> dict[str, Any]:
    """A checkpoint of ``twin``, cut out of the supernet of ``state``: what ``fairseq-train`` would have saved of it
    with the stock ``translation`` task, without optimizer state."""
    model = {f.name: getattr(twin.cfg, f.name) for f in fields(twin.cfg)} | {"_name": "transformer_subnet"}
    return model_checkpoint(state, model, twin.state_dict())


def model_checkpoint(state: dict[str, Any], model_cfg: Any, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A checkpoint of a model that takes the supernet's place in the run of ``state``, for the stock tasks."""
    # fairseq keeps components without a dataclass, as its sgd, in namespaces, which torch's safe reader does not take
    cfg = {name: vars(part) if isinstance(part, Namespace) else part for name, part in state["cfg"].items()}
    cfg["model"] = model_cfg
    cfg["task"] = _stock_section(cfg["task"], TranslationConfig, "translation")
    criterion = cfg.get("criterion") or {}
    if criterion.get("_name") in ("label_smoothed_cross_entropy_mos", "distillation_mos"):
        name = "label_smoothed_cross_entropy"
        cfg["criterion"] = _stock_section(criterion, LabelSmoothedCrossEntropyCriterionConfig, name)
    updates = (state.get("optimizer_history") or [{}])[-1].get("num_updates", 0)
    # fairseq reads a history and a train iterator even where it is told to reset both
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": updates}
    return {
        "args": None,
        "cfg": cfg,
        "model": _copies(weights),
        "criterion": None,
        "optimizer_history": [history],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0, "shuffle": True}},
    }


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


def _stock_section(section: dict[str, Any], config: type, name: str) -> dict[str, Any]:
    """The part of our configuration ``section`` that fairseq's own component ``name`` knows."""
    known = {field.name for field in fields(config)}
    return {key: value for key, value in section.items() if key in known} | {"_name": name}


def save_checkpoint(checkpoint: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint, so that a reader sees the old file or the whole new one.

    Raises:
        InputError: the file cannot be written.
    """
    write_atomically(path, lambda file: torch.save(checkpoint, file))
