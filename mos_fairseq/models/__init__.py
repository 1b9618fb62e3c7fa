"""Models registered with fairseq: for each family a supernet and its static twin.

``transformer_mos`` and ``transformer_subnet`` translate; ``transformer_lm_mos`` and ``transformer_lm_subnet`` model
language; ``roberta_mos`` and ``roberta_subnet`` model masked language.
"""

from mos_fairseq.models.roberta_mos import RobertaMosConfig, RobertaMosModel
from mos_fairseq.models.roberta_subnet import RobertaSubnetConfig, RobertaSubnetModel
from mos_fairseq.models.static_twin import StaticTwin
from mos_fairseq.models.supernet import Supernet
from mos_fairseq.models.transformer_lm_mos import TransformerLanguageModelMosConfig, TransformerLanguageModelMosModel
from mos_fairseq.models.transformer_lm_subnet import (
    TransformerLanguageModelSubnetConfig,
    TransformerLanguageModelSubnetModel,
)
from mos_fairseq.models.transformer_model import placeholder_dictionary
from mos_fairseq.models.transformer_mos import TransformerMosConfig, TransformerMosModel
from mos_fairseq.models.transformer_subnet import TransformerSubnetConfig, TransformerSubnetModel
from mos_fairseq.search_space import Family

SUPERNETS = {
    model.family.name: model for model in (TransformerMosModel, TransformerLanguageModelMosModel, RobertaMosModel)
}
"""The supernet class of each family, by the family's name."""


def twin_of(family: Family) -> type[StaticTwin]:
    """Return the class of a family's static twins."""
    return SUPERNETS[family.name].twin


__all__ = [
    "SUPERNETS",
    "RobertaMosConfig",
    "RobertaMosModel",
    "RobertaSubnetConfig",
    "RobertaSubnetModel",
    "StaticTwin",
    "Supernet",
    "TransformerLanguageModelMosConfig",
    "TransformerLanguageModelMosModel",
    "TransformerLanguageModelSubnetConfig",
    "TransformerLanguageModelSubnetModel",
    "TransformerMosConfig",
    "TransformerMosModel",
    "TransformerSubnetConfig",
    "TransformerSubnetModel",
    "placeholder_dictionary",
    "twin_of",
]
