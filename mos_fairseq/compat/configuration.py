"""Report options and values that a component does not have: fairseq-hydra-train names the component."""

from __future__ import annotations

import functools
from typing import Any

from fairseq.dataclass import utils
from omegaconf import DictConfig
from omegaconf.errors import ConfigKeyError, ValidationError

from ..errors import InputError


def explain_unknown_options() -> None:
    """Name the component that lacks an option of the configuration, and the search space, if there is one.

    A recipe for one task may set options that another task's model does not have. omegaconf's message names neither.
    """
    original = utils.merge_with_parent
    if hasattr(original, "_mos_fairseq_original"):
        return

    @functools.wraps(original)
    def merge_with_parent(dc: Any, cfg: DictConfig, *args: Any, **kwargs: Any) -> DictConfig:
        try:
            return original(dc, cfg, *args, **kwargs)
        except ConfigKeyError as error:
            raise InputError(_explanation(cfg, str(error.key))) from error
        except ValidationError as error:
            raise InputError(f"{cfg._key()}.{error.full_key}: {str(error.msg).splitlines()[0]}") from error

    merge_with_parent._mos_fairseq_original = original  # type: ignore[attr-defined]
    utils.merge_with_parent = merge_with_parent


def _explanation(cfg: DictConfig, key: str) -> str:
    group, whole, value = cfg._key(), cfg._get_parent(), cfg.get(key)
    text = f"{group}.{key} is {value}: {group} {cfg.get('_name')} has no such option"
    task = whole.get("task") if isinstance(whole, DictConfig) else None
    if not isinstance(task, DictConfig) or (space := task.get("search_space")) is None:
        return text
    return f"{text} (the search space is {space}: is it of the family that {task.get('_name')} takes?)"
