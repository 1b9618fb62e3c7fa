"""Models registered with fairseq: ``transformer_mos`` (supernet) and ``transformer_subnet`` (static twin)."""

from mos_fairseq.models.transformer_model import placeholder_dictionary
from mos_fairseq.models.transformer_mos import TransformerMosConfig, TransformerMosModel
from mos_fairseq.models.transformer_subnet import TransformerSubnetConfig, TransformerSubnetModel

__all__ = [
    "TransformerMosConfig",
    "TransformerMosModel",
    "TransformerSubnetConfig",
    "TransformerSubnetModel",
    "placeholder_dictionary",
]
