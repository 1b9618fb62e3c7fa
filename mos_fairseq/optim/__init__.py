"""What is registered with fairseq of its ``optim``: learning-rate schedulers."""

from mos_fairseq.optim import lr_scheduler

__all__ = ["lr_scheduler"]
