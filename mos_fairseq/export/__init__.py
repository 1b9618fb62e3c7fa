"""Export one subnet of a supernet's checkpoint."""

# imported here, because the function has its module's name: a later import of the module would replace it
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
