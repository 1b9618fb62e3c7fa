"""From a supernet's checkpoint to the checkpoint of one subnet."""

from mos_fairseq.export.checkpoint import (
    build_supernet,
    read_supernet,
    read_vocabularies,
    save_checkpoint,
    twin_checkpoint,
)
from mos_fairseq.export.ctranslate2 import QUANTIZATIONS, save_ctranslate2
from mos_fairseq.export.stock import stock_checkpoint

__all__ = [
    "QUANTIZATIONS",
    "build_supernet",
    "read_supernet",
    "read_vocabularies",
    "save_checkpoint",
    "save_ctranslate2",
    "stock_checkpoint",
    "twin_checkpoint",
]
