"""Compose fairseq's configuration of a command's options as hydra does, in a tenth of the time.

hydra composes the chosen groups (``task=translation``), which is slowest, then sets the options one by one
(``task.data=…``). :func:`remember` caches the first for every choice, and the parsed form of each option; hydra's own
function does the second, for options that are not at their defaults. fairseq then makes a configuration without types
of the result; :class:`Untyped` begins with that of the groups.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import os
import pickle
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, Node, OmegaConf

_composed: dict[tuple[str, ...], Any] = {}
_untyped: dict[tuple[str, ...], DictConfig] = {}
_parsed: dict[str, Any] = {}
_folder: Path | None = None
_read: set[Path] = set()
missing = object()


def remember(folder: Path | None = None) -> None:
    """Cache from now on, in this process and its forks; processes share compositions in ``folder``."""
    global _folder
    _folder = folder
    for name, mine in replacements().items():
        setattr(importlib.import_module("fairseq.dataclass.utils"), name, mine)
    inspect.getmodule(compile("", "unknown", "exec"))  # it caches the files of all modules, which hydra asks for


def remembers() -> bool:
    return _folder is not None


def replacements() -> dict[str, Any]:
    """Name in ``fairseq.dataclass.utils`` -> what replaces it there."""
    return {"initialize": lambda **_: nullcontext(), "compose": compose, "OmegaConf": Untyped}


def compose(config_name: str, overrides: list[str], strict: bool | None = None) -> Any:
    """In the place of hydra's, for ``fairseq.dataclass.utils.convert_namespace_to_omegaconf``."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    groups = tuple(line for line in overrides if "." not in line.partition("=")[0])
    known = _known(config_name, groups)
    fresh = [line for line in overrides if line not in _parsed]
    if fresh:
        parser = importlib.import_module("hydra.core.override_parser.overrides_parser").OverridesParser.create()
        _parsed.update(zip(fresh, parser.parse_overrides(fresh), strict=True))
    cfg = _composed.pop(groups) if known and _folder else copy.deepcopy(_composed[groups])
    options = [_parsed[line] for line in overrides if line not in groups]
    OmegaConf.set_struct(cfg, True)
    ConfigLoaderImpl._apply_overrides_to_config(_that_change(OmegaConf.to_container(cfg), options), cfg)
    OmegaConf.set_struct(cfg, strict)
    if not known:
        _share(groups)
    Untyped.groups = groups
    return cfg


class Untyped(OmegaConf):
    """``create`` sets only what differs from the defaults of the groups that were composed last."""

    groups: tuple[str, ...] | None = None

    @staticmethod
    def create(content: dict[str, Any]) -> DictConfig:
        cfg = _untyped.pop(Untyped.groups, None)  # a copy would take longer than a new one
        if cfg is not None and _set(cfg, content):
            return cfg
        return OmegaConf.create(content)


def _untyped_of(composed: DictConfig) -> DictConfig:
    return OmegaConf.create(OmegaConf.to_container(composed, resolve=True, enum_to_str=True))


def _plain(node: Node) -> Any:
    return OmegaConf.to_container(node) if isinstance(node, ListConfig) else node._value()


def _set(cfg: DictConfig, content: dict[str, Any]) -> bool:
    """Make ``cfg`` what ``OmegaConf.create(content)`` is; return False where the keys differ."""
    nodes = cfg._content
    if not isinstance(nodes, dict) or nodes.keys() != content.keys():
        return False
    for key, value in content.items():
        if isinstance(nodes[key], DictConfig):
            if not isinstance(value, dict) or not _set(nodes[key], value):
                return False
        elif isinstance(value, dict):
            return False
        elif repr(_plain(nodes[key])) != repr(value):
            cfg[key] = value
    return True


def _that_change(plain: Any, options: list) -> list:
    """Return the options that change the configuration: most of a command's 300 have the value that is there already.

    ``repr`` tells 1 from True and 1.0. An option that is given again is kept.
    """
    kept, changed = [], set()
    for option in options:
        key, value = option.key_or_group, plain
        for name in key.split("."):
            value = value.get(name, missing) if isinstance(value, dict) else missing
        if key in changed or option.is_add() or option.is_delete() or repr(option.value()) != repr(value):
            changed.add(key)
            kept.append(option)
    return kept


def learn() -> None:
    """Read what other processes have composed, so that forks of this one need not."""
    if _folder is not None:
        for file in _folder.glob(f"{_kind()}*.pickle"):
            if file not in _read:
                _read.add(file)
                with suppress(AttributeError, ImportError, pickle.UnpicklingError):  # a class of the other's only
                    _remember(*pickle.loads(file.read_bytes()))


def _known(config_name: str, groups: tuple[str, ...]) -> bool:
    """Whether the groups were composed already; they are afterwards."""
    if groups in _composed:
        return True
    file = _file(groups)
    if file is not None and file.exists():
        _remember(*pickle.loads(file.read_bytes()))
        return True
    hydra = importlib.import_module("hydra.experimental")
    config = Path(importlib.import_module("fairseq").__file__).with_name("config")
    with hydra.initialize_config_dir(str(config)):
        _composed[groups] = hydra.compose(config_name, overrides=list(groups))
    return False


def _remember(groups: tuple[str, ...], composed: DictConfig, untyped: DictConfig, parsed: dict[str, Any]) -> None:
    _composed[groups], _untyped[groups] = composed, untyped
    _parsed.update(parsed)


def _share(groups: tuple[str, ...]) -> None:
    if (file := _file(groups)) is not None:
        part = file.with_suffix(f".{os.getpid()}")
        with suppress(pickle.PicklingError):  # some of fairseq's enums have no name to be found by
            composed = _composed[groups]
            part.write_bytes(pickle.dumps((groups, composed, _untyped_of(composed), _parsed)))
            part.replace(file)


def _file(groups: tuple[str, ...]) -> Path | None:
    return _folder and _folder / f"{_kind()}{hashlib.sha256(repr(groups).encode()).hexdigest()[:16]}.pickle"


def _kind() -> str:
    """Only a process that has imported the plugin reads compositions with its classes."""
    return "plugin-" if "mos_fairseq" in sys.modules else "stock-"
