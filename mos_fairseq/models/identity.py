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
    """Return the buffer, encoded by :mod:`mos_fairseq.models.lasting_buffers`; ``cfg`` has the routing options."""
    return to_bits(json.dumps({"search_space": space.dumps(), "mos": _routing(cfg)}).encode())


def check_identity(stored: Tensor, space: SearchSpace, cfg: Any) -> None:
    """Raise InputError, with the differences, unless ``stored`` comes from a supernet of ``space`` and ``cfg``."""
    try:
        # up to version 0.1.0: bytes in int64, one each
        content = from_bits(stored) if stored.is_floating_point() else bytes(stored.tolist())
        identity = json.loads(content)
        their_space, their_routing = SearchSpace.from_spec(identity["search_space"]), dict(identity["mos"])
    except (KeyError, TypeError, ValueError):
        raise InputError("these weights are not of one supernet: identity is unreadable") from None
    defaults = _routing(MosOptions())  # for options added after the weights were saved
    pairs = [(key, their_routing.get(key, defaults[key]), mine) for key, mine in _routing(cfg).items()]
    differences = [f"{key}: {theirs} against {mine}" for key, theirs, mine in pairs if theirs != mine]
    if difference := "; ".join(filter(None, [their_space.difference(space), *differences])):
        raise InputError(f"the checkpoint is from another supernet (checkpoint against this run): {difference}")


def _routing(cfg: Any) -> dict[str, str | int]:
    values = {option.name: getattr(cfg, option.name) for option in fields(MosOptions)}
    return {key: value if isinstance(value, int) else str(value) for key, value in values.items()}
