"""From a checkpoint of fairseq's own ``transformer`` to a supernet whose largest subnet is that model (BootstrapNAS,
arXiv 2112.10878)."""

from mos_fairseq.warm_start.importance import Orders, importance_orders
from mos_fairseq.warm_start.stock import StockModel, check_space, read_transformer
from mos_fairseq.warm_start.supernet import supernet_checkpoint, supernet_from

__all__ = [
    "Orders",
    "StockModel",
    "check_space",
    "importance_orders",
    "read_transformer",
    "supernet_checkpoint",
    "supernet_from",
]
