"""Encode facts about a model as a buffer of its state dict that survives arithmetic on the state dict.

fairseq's ``--store-ema``, its ``average_checkpoints.py`` and older averaging scripts compute on every entry of
``state["model"]``: they multiply, add, and divide in place. Integers do not survive that (a product with 0.999 cannot
be written back), and most floats drift. Zeros and ones in floating point survive: in every floating-point type
d * 1 + (1 - d) * 1 rounds to 1, and so does the sum of n ones divided by n.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_bits(content: bytes) -> Tensor:
    """Return zeros and ones in fp32 [8 * len(content)], the highest bit of each byte first."""
    return torch.from_numpy(np.unpackbits(np.frombuffer(content, dtype=np.uint8))).float()


def from_bits(bits: Tensor) -> bytes:
    """Decode the result of :func:`to_bits`; ``bits`` may have another shape, dtype or device.

    Raises:
        ValueError: the entries are not all near 0 or 1, or do not fill bytes.
    """
    values = bits.detach().flatten().float().cpu()
    ones = values > 0.5
    if len(values) % 8 or not torch.allclose(values, ones.float(), rtol=0, atol=0.25):
        raise ValueError("these are no bits")
    return np.packbits(ones.numpy()).tobytes()
