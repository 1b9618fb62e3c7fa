"""``transformer_lm_mos``: a decoder-only language model as a supernet, with Mixture-of-Supernets layers."""

from dataclasses import dataclass

from fairseq.models import register_model

from mos_fairseq.models.supernet import Supernet
from mos_fairseq.models.supernet_options import SupernetOptions
from mos_fairseq.models.transformer_config import TransformerLanguageModelBaseConfig
from mos_fairseq.models.transformer_lm_model import TransformerLanguageModel
from mos_fairseq.models.transformer_lm_subnet import TransformerLanguageModelSubnetModel


@dataclass
class TransformerLanguageModelMosConfig(SupernetOptions, TransformerLanguageModelBaseConfig):
    """Options of the supernet."""


@register_model("transformer_lm_mos", dataclass=TransformerLanguageModelMosConfig)
class TransformerLanguageModelMosModel(Supernet, TransformerLanguageModel):
    """Supernet for language modelling."""

    arch, task = "transformer_lm_mos", "language_modeling_mos"
    twin = TransformerLanguageModelSubnetModel
