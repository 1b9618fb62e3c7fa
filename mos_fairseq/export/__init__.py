"""From a supernet's checkpoint to the checkpoint of one subnet."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "checkpoint": ["build_supernet", "read_supernet", "read_vocabularies", "save_checkpoint", "twin_checkpoint"],
        "ctranslate2": ["save_ctranslate2"],
        "formats": ["FORMATS", "QUANTIZATIONS"],
        "stock": ["stock_checkpoint"],
    },
)
