"""Supernet against standalone: how far what a subnet scores with inherited weights is from what the same architecture
reaches when it is trained alone."""

from mos_fairseq.gap.statistics import Gap, gap_of
from mos_fairseq.gap.table import Row, read_table, write_table

__all__ = ["Gap", "Row", "gap_of", "read_table", "write_table"]
