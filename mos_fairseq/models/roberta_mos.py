"""``roberta_mos``: a masked language model as a supernet, with Mixture-of-Supernets layers (MoS-BERT,
arXiv 2306.04845)."""

from dataclasses import dataclass
from typing import Any

from fairseq.models import register_model

from mos_fairseq.models.roberta_model import RobertaModel
from mos_fairseq.models.roberta_subnet import RobertaSubnetModel
from mos_fairseq.models.static_copy import copy_modules
from mos_fairseq.models.supernet import Supernet
from mos_fairseq.models.supernet_options import SupernetOptions
from mos_fairseq.models.transformer_config import RobertaBaseConfig
from mos_fairseq.search_space import Subnet


@dataclass
class RobertaMosConfig(SupernetOptions, RobertaBaseConfig):
    """Options of the supernet."""


@register_model("roberta_mos", dataclass=RobertaMosConfig)
class RobertaMosModel(Supernet, RobertaModel):
    """Supernet for masked language modelling."""

    arch, task = "roberta_mos", "masked_lm_mos"
    twin = RobertaSubnetModel

    def set_active_subnet(self, subnet: Subnet) -> None:
        super().set_active_subnet(subnet)
        for head in self.classification_heads.values():
            head.set_active_size(self.encoder.embed_dim)

    def register_classification_head(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().register_classification_head(name, *args, **kwargs)
        self.classification_heads[name].set_active_size(self.encoder.embed_dim)

    def get_active_subnet(self) -> RobertaSubnetModel:
        twin = super().get_active_subnet()
        for name, head in self.classification_heads.items():
            twin.register_classification_head(name, head.num_classes, head.inner_dim)
            copy_modules(head, twin.classification_heads[name])
        return twin.eval()
