"""Supernet against standalone: how far what a subnet scores with inherited weights is from what the same architecture
reaches when it is trained alone."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "statistics": ["Gap", "gap_of"],
        "table": ["Row", "read_table", "write_table"],
    },
)
