"""From a supernet's checkpoint to the checkpoint of one subnet."""

from mos_fairseq.export.checkpoint import build_supernet, read_supernet, save_checkpoint, twin_checkpoint
from mos_fairseq.export.stock import stock_checkpoint

__all__ = ["build_supernet", "read_supernet", "save_checkpoint", "stock_checkpoint", "twin_checkpoint"]
