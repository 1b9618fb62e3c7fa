"""From a supernet's checkpoint to the checkpoint of one subnet."""

# at once: it is called as its module, which would stand here in its place where that is imported first
from mos_fairseq.export.stock_sizes import stock_sizes  # noqa: F401
from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "ctranslate2": ["save_ctranslate2"],
        "huggingface": ["save_huggingface"],
        "huggingface_translation": ["save_huggingface_translation"],
        "formats": ["FORMATS", "QUANTIZATIONS", "ExportOptions", "Format", "find_format"],
        "stock": ["stock_checkpoint"],
        "stock_sizes": ["StockSizes", "stock_sizes"],
    },
)
