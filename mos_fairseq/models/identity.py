"""A supernet's search space and routing, stored with its weights in the state dict: equal shapes do not imply it."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from torch import Tensor

from mos_fairseq.errors import InputError
from mos_fairseq.models.lasting_buffers import from_bits, to_bits
from mos_fairseq.mos_options import MosOptions
from mos_fairseq.search_space import SearchSpace


def make_identity(space: SearchSpace, cfg: Any) -> Tensor:
    """The buffer, in the form of :mod:`mos_fairseq.models.lasting_buffers`; ``cfg`` has the options of the routing."""
    return to_bits(json.dumps({"search_space": space.dumps(), "mos": _stated(cfg)}).encode())


def check_identity(stored: Tensor, space: SearchSpace, cfg: Any) -> None:
    """Raise InputError, with the differences, unless ``stored`` comes from a supernet of ``space`` and ``cfg``."""
    try:
        # up to version 0.1.0: bytes in int64, one each
        content = from_bits(stored) if stored.is_floating_point() else bytes(stored.tolist())
        identity = json.loads(content)
        their_space, their_routing = SearchSpace.from_spec(identity["search_space"]), dict(identity["mos"])
    except (KeyError, TypeError, ValueError):
        raise InputError("these weights are not of one supernet: identity is unreadable") from None
    mine = _routing(cfg)
    pairs = [(key, their_routing.get(key, _DEFAULTS[key]), value) for key, value in mine.items()]
    differences = [f"{key}: {theirs} against {value}" for key, theirs, value in pairs if theirs != value]
    if difference := "; ".join(filter(None, [their_space.difference(space), *differences])):
        raise InputError(f"the checkpoint is from another supernet (checkpoint against this run): {difference}")


def _routing(cfg: Any) -> dict[str, str | int]:
    values = {option.name: getattr(cfg, option.name) for option in fields(MosOptions)}
    return {key: value if isinstance(value, int) else str(value) for key, value in values.items()}


_DEFAULTS = _routing(MosOptions())
_YOUNGER = ("expert_rank",)  # than version 0.1.0: stated where they are not at their default


def _stated(cfg: Any) -> dict[str, str | int]:
    """What the buffer says of the routing: without an option that is younger and off, what it said before."""
    return {key: value for key, value in _routing(cfg).items() if key not in _YOUNGER or value != _DEFAULTS[key]}
