"""What distinguishes a supernet's layers from plain weight sharing: defaults and choices. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import ENCODING_KINDS

CHOICES = {
    "mos_routing": ("none", "layer", "neuron", "rank"),
    "mos_linears": ("ffn", "attention", "all"),
    "arch_encoding": tuple(ENCODING_KINDS),
}

ROUTER_DROPOUT = 0.1


@dataclass(frozen=True)
class MosOptions:
    """Defaults of the options of ``transformer_mos`` that decide which parameters a supernet has."""

    mos_routing: str = "neuron"
    num_experts: int = 2
    expert_rank: int = 0
    mos_linears: str = "ffn"
    arch_encoding: str = "aggregate"
    router_hidden_dim: int = 128
    router_layers: int = 2


_OF_EXPERTS = ("num_experts", "mos_linears", "router_hidden_dim", "router_layers")  # recipes set the encoding


def check_experts(options: Any) -> None:
    """Raise InputError if one of ``options`` has no effect because there are no experts; they are those of
    :class:`MosOptions`, and ``router_dropout``.

    Values at their defaults pass, so that a script can change the routing alone.
    """
    defaults = {name: getattr(MosOptions, name) for name in _OF_EXPERTS} | {"router_dropout": ROUTER_DROPOUT}
    for name, default in defaults.items() if str(options.mos_routing) == "none" else ():
        if str(value := getattr(options, name, default)) != str(default):
            routings = ", ".join(routing for routing in CHOICES["mos_routing"] if routing != "none")
            raise InputError(f"{name} is {value}: it has no effect with mos_routing none, only with {routings}")
