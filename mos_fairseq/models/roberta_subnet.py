"""``roberta_subnet``: the static twin of a ``roberta_mos`` subnet, a plain dense masked language model.

Adjacent maps between layers are merged. It can also be trained from scratch with fairseq's ``masked_lm``, and
fine-tuned with its ``sentence_prediction``: ``--arch roberta_subnet --subnet FILE``.
"""

from dataclasses import dataclass, field
from typing import Optional  # fairseq reads the annotations and does not support `str | None`

from fairseq.models import register_model

from mos_fairseq.models.roberta_model import RobertaModel
from mos_fairseq.models.static_twin import StaticTwin
from mos_fairseq.models.transformer_config import RobertaBaseConfig


@dataclass
class RobertaSubnetConfig(RobertaBaseConfig):
    """Options of the static twin."""

    subnet: Optional[str] = field(
        default=None, metadata={"help": "the architecture: a YAML file of a subnet, or its inline JSON"}
    )


@register_model("roberta_subnet", dataclass=RobertaSubnetConfig)
class RobertaSubnetModel(StaticTwin, RobertaModel):
    """Static twin for masked language modelling."""

    arch, config = "roberta_subnet", RobertaSubnetConfig
