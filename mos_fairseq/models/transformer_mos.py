"""``transformer_mos``: the encoder-decoder supernet (HAT, arXiv 2005.14187) with Mixture-of-Supernets layers
(MoS, arXiv 2306.04845). Sizes follow from the search space; ``--mos-routing none`` is plain weight sharing."""

from dataclasses import dataclass

from fairseq.models import register_model

from mos_fairseq.models.supernet import Supernet
from mos_fairseq.models.supernet_options import SupernetOptions
from mos_fairseq.models.transformer_config import TransformerBaseConfig
from mos_fairseq.models.transformer_model import TransformerModel
from mos_fairseq.models.transformer_subnet import TransformerSubnetModel


@dataclass
class TransformerMosConfig(SupernetOptions, TransformerBaseConfig):
    """Options of the supernet."""


@register_model("transformer_mos", dataclass=TransformerMosConfig)
class TransformerMosModel(Supernet, TransformerModel):
    """Supernet for translation."""

    arch, task = "transformer_mos", "translation_mos"
    twin = TransformerSubnetModel
