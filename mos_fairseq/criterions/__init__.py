"""Criterions registered with fairseq."""

from mos_fairseq.criterions.distillation_mos import DistillationMosConfig, DistillationMosCriterion
from mos_fairseq.criterions.label_smoothed_cross_entropy_mos import (
    LabelSmoothedCrossEntropyMosConfig,
    LabelSmoothedCrossEntropyMosCriterion,
)

__all__ = [
    "DistillationMosConfig",
    "DistillationMosCriterion",
    "LabelSmoothedCrossEntropyMosConfig",
    "LabelSmoothedCrossEntropyMosCriterion",
]
