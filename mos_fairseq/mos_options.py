"""What distinguishes a supernet's layers from plain weight sharing: defaults and choices. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from mos_fairseq.search_space import ENCODING_KINDS

CHOICES = {
    "mos_routing": ("none", "layer", "neuron", "rank"),
    "mos_linears": ("ffn", "attention", "all"),
    "arch_encoding": tuple(ENCODING_KINDS),
}


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
