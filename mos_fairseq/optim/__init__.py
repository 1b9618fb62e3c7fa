"""Optimizers registered with fairseq."""

from mos_fairseq.optim.adam_fused import AdamFused, AdamFusedConfig

__all__ = ["AdamFused", "AdamFusedConfig"]
