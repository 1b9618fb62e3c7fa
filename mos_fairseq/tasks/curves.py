"""Names of curves in TensorBoard: those of a metric are in one group, ``loss/largest`` beside ``loss``."""

from __future__ import annotations

from mos_fairseq.compat.curves import NAMES

_FAIRSEQS_OWN = "loss_scale"  # of half precision


def key_of(metric: str, subnet: str) -> str:
    """Return the key under which fairseq logs a subnet's metric, and name its curve after the metric's."""
    key = f"{metric}_{subnet}"
    if key != _FAIRSEQS_OWN:
        NAMES[key] = f"{metric}/{subnet}"
    return key
