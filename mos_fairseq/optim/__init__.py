"""What is registered with fairseq of its ``optim``: optimizers and learning-rate schedulers."""

from mos_fairseq.optim import lr_scheduler
from mos_fairseq.optim.adam_fused import AdamFused, AdamFusedConfig, upgrade_checkpoints
from mos_fairseq.optim.scaled_adam import ScaledAdam, ScaledAdamConfig

upgrade_checkpoints()

__all__ = ["AdamFused", "AdamFusedConfig", "ScaledAdam", "ScaledAdamConfig", "lr_scheduler"]
