"""Which supernet weights are of: search space and routing, in the state dict. Equal shapes make no equal spaces."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor

from mos_fairseq.errors import InputError
from mos_fairseq.models.lasting_buffers import from_bits, to_bits
from mos_fairseq.search_space import SearchSpace

_ROUTING = ("mos_routing", "num_experts", "mos_linears", "arch_encoding", "router_hidden_dim", "router_layers")


def make_identity(space: SearchSpace, cfg: Any) -> Tensor:
    """The buffer, in the form of :mod:`mos_fairseq.models.lasting_buffers`; ``cfg`` has the options of the routing."""
    return to_bits(json.dumps({"search_space": space.dumps(), "mos": _routing(cfg)}).encode())


def check_identity(stored: Tensor, space: SearchSpace, cfg: Any) -> None:
    """Raise InputError, with the differences, unless ``stored`` is of a supernet of ``space`` and ``cfg``."""
    try:
        # up to version 0.1.0 bytes in int64, one each
        content = from_bits(stored) if stored.is_floating_point() else bytes(stored.tolist())
        identity = json.loads(content)
        their_space, their_routing = SearchSpace.from_spec(identity["search_space"]), identity["mos"]
        routing = {key: (their_routing[key], mine) for key, mine in _routing(cfg).items()}
    except (KeyError, TypeError, ValueError):
        raise InputError("these weights are not of one transformer_mos supernet: identity is unreadable") from None
    differences = [f"{key}: {theirs} against {mine}" for key, (theirs, mine) in routing.items() if theirs != mine]
    if difference := "; ".join(filter(None, [their_space.difference(space), *differences])):
        raise InputError(f"the checkpoint is of another supernet (checkpoint against this run): {difference}")


def _routing(cfg: Any) -> dict[str, str | int]:
    values = {key: getattr(cfg, key) for key in _ROUTING}
    return {key: value if isinstance(value, int) else str(value) for key, value in values.items()}
