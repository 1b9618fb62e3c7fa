"""Supernet against standalone: the difference between a subnet's scores with inherited weights and the scores of the
same architecture trained alone."""

from mos_fairseq.lazy import names_of

__getattr__, __all__ = names_of(
    __name__,
    {
        "statistics": ["Gap", "gap_of"],
        "table": ["Row", "read_table", "write_table"],
    },
)
