"""``roberta_mos``: a masked language model as a supernet, with Mixture-of-Supernets layers (MoS-BERT,
arXiv 2306.04845)."""

from dataclasses import dataclass, field
from typing import Any, Optional, Self  # fairseq reads the annotations and does not support `str | None`

from fairseq.models import register_model

from mos_fairseq.models.roberta_model import RobertaModel
from mos_fairseq.models.roberta_subnet import RobertaSubnetModel
from mos_fairseq.models.static_copy import copy_modules
from mos_fairseq.models.supernet import Supernet
from mos_fairseq.models.supernet_options import SupernetOptions
from mos_fairseq.models.transformer_config import RobertaBaseConfig, record_in_config
from mos_fairseq.search_space import Subnet, resolve_subnet


@dataclass
class RobertaMosConfig(SupernetOptions, RobertaBaseConfig):
    """Options of the supernet."""

    search_space: Optional[str] = field(
        default="${oc.select:task.search_space,null}",
        metadata={"help": "under fairseq's own tasks, such as sentence_prediction: preset name or YAML file"},
    )
    subnet: Optional[str] = field(
        default=None,
        metadata={
            "help": "under fairseq's own tasks: the subnet that trains, with weights shared with other subnets: "
            "largest (default), smallest, random:SEED, or a YAML file"
        },
    )


@register_model("roberta_mos", dataclass=RobertaMosConfig)
class RobertaMosModel(Supernet, RobertaModel):
    """Supernet for masked language modelling."""

    arch, task = "roberta_mos", "masked_lm_mos"
    other_tasks = ("sentence_prediction_mos",)
    twin = RobertaSubnetModel

    @classmethod
    def build_model(cls, cfg: RobertaMosConfig, task: Any) -> Self:
        """Build as :meth:`Supernet.build_model`. Under a task without ``--subnet``, the model's own option applies.

        Raises:
            InputError: as there, or the subnet is invalid.
        """
        model = super().build_model(cfg, task)
        if not hasattr(task, "training_subnets"):
            model.set_active_subnet(resolve_subnet(cfg.subnet or "largest", model.search_space))
            record_in_config(cfg, "model", "search_space", model.search_space.dumps())
            record_in_config(cfg, "model", "subnet", model.active_subnet.key)
        return model

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
