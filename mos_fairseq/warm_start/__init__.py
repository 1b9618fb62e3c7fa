"""From a checkpoint of fairseq's own ``transformer`` to a supernet whose largest subnet is that model (BootstrapNAS,
arXiv 2112.10878)."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "family": ["SIDES", "check_family_of", "has_narrower_attention"],
        "importance": ["Orders", "importance_orders"],
        "stock": ["StockModel", "check_space", "read_transformer"],
        "supernet": ["supernet_checkpoint", "supernet_from"],
    },
)
