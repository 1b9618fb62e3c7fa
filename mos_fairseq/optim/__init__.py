"""What is registered with fairseq of its ``optim``: optimizers and learning-rate schedulers."""

from mos_fairseq.optim import lr_scheduler
from mos_fairseq.optim.adam_fused import AdamFused, AdamFusedConfig, upgrade_checkpoints

upgrade_checkpoints()

__all__ = ["AdamFused", "AdamFusedConfig", "lr_scheduler"]
