"""Options that supernets of all families add to those of their model."""

from dataclasses import dataclass, field
from typing import Optional  # fairseq reads the annotations, and knows no `str | None`

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from mos_fairseq.models.dropout_scaling import DROPOUT_SCALINGS
from mos_fairseq.mos_options import CHOICES, ROUTER_DROPOUT, MosOptions


@dataclass
class SupernetOptions(FairseqDataclass):
    """Search space, routing (arXiv 2306.04845), and what depends on the active subnet."""

    # of the task, which at training replaces it by the space itself, so that checkpoints carry it; null elsewhere
    search_space: Optional[str] = "${oc.select:task.search_space,null}"
    mos_routing: ChoiceEnum(list(CHOICES["mos_routing"])) = field(
        default=MosOptions.mos_routing,
        metadata={
            "help": "how experts are mixed: none (plain weight sharing), one mixture a layer, one a neuron, or one a "
            "component of experts of low rank"
        },
    )
    num_experts: int = field(default=MosOptions.num_experts, metadata={"help": "experts of each matrix that has them"})
    expert_rank: int = field(
        default=MosOptions.expert_rank,
        metadata={
            "help": "rank of the experts, which are added to weights that all subnets share: nearly the parameters and "
            "memory of plain weight sharing (default 0: experts are full matrices)"
        },
    )
    freeze_shared: bool = field(
        default=False, metadata={"help": "train experts of low rank and their routers only; all else stays as it is"}
    )
    mos_linears: ChoiceEnum(list(CHOICES["mos_linears"])) = field(
        default=MosOptions.mos_linears,
        metadata={"help": "matrices that have experts: the FFN's, the attention projections, or all"},
    )
    arch_encoding: ChoiceEnum(list(CHOICES["arch_encoding"])) = field(
        default=MosOptions.arch_encoding,
        metadata={"help": "the routers' input: averages over layers, or every layer's sizes"},
    )
    router_hidden_dim: int = field(
        default=MosOptions.router_hidden_dim, metadata={"help": "hidden size of the routers"}
    )
    router_layers: int = field(
        default=MosOptions.router_layers, metadata={"help": "linear layers of a router; 1 is a linear router"}
    )
    router_dropout: float = field(default=ROUTER_DROPOUT, metadata={"help": "dropout within the routers"})
    dropout_scaling: ChoiceEnum(list(DROPOUT_SCALINGS)) = field(
        default="width",
        metadata={
            "help": "a subnet's dropout: scaled by its embedding width over the largest (width), activation dropout by "
            "each layer's FFN width (layer), of the largest subnet only (largest), or all the same (none); routers and "
            "classification heads keep theirs"
        },
    )
