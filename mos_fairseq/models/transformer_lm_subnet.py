"""``transformer_lm_subnet``: the static twin of a ``transformer_lm_mos`` subnet, a plain dense language model.

Also trained from scratch with fairseq's task ``language_modeling``: ``--arch transformer_lm_subnet --subnet FILE``.
"""

from dataclasses import dataclass, field
from typing import Optional  # fairseq reads the annotations and does not support `str | None`

from fairseq.models import register_model

from mos_fairseq.models.static_twin import StaticTwin
from mos_fairseq.models.transformer_config import TransformerLanguageModelBaseConfig
from mos_fairseq.models.transformer_lm_model import TransformerLanguageModel


@dataclass
class TransformerLanguageModelSubnetConfig(TransformerLanguageModelBaseConfig):
    """Options of the static twin."""

    subnet: Optional[str] = field(
        default=None, metadata={"help": "the architecture: a YAML file of a subnet, or its inline JSON"}
    )


@register_model("transformer_lm_subnet", dataclass=TransformerLanguageModelSubnetConfig)
class TransformerLanguageModelSubnetModel(StaticTwin, TransformerLanguageModel):
    """Static twin for language modelling."""

    arch, config = "transformer_lm_subnet", TransformerLanguageModelSubnetConfig
