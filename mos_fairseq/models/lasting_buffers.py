"""Facts about a model that its state dict carries as a buffer, and that survive arithmetic on the state dict.

fairseq's ``--store-ema``, its ``average_checkpoints.py`` and older averaging scripts calculate on every entry of
``state["model"]``: they multiply, add, and divide in place. Integers do not survive that (a product with 0.999 cannot
be written back). Floats of any value drift. Zeros and ones in floating point do neither: in every floating-point type
d * 1 + (1 - d) * 1 rounds to 1, and so does the sum of n ones divided by n.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_bits(content: bytes) -> Tensor:
    """Zeros and ones in fp32 [8 * len(content)], the highest bit of each byte first."""
    return torch.from_numpy(np.unpackbits(np.frombuffer(content, dtype=np.uint8))).float()


def from_bits(bits: Tensor) -> bytes:
    """What :func:`to_bits` was given; ``bits`` may have another shape, dtype or device.

    Raises:
        ValueError: the entries are not all near 0 or 1, or do not fill bytes.
    """
    values = bits.detach().flatten().float().cpu()
    ones = values > 0.5
    if len(values) % 8 or not torch.allclose(values, ones.float(), rtol=0, atol=0.25):
        raise ValueError("these are no bits")
    return np.packbits(ones.numpy()).tobytes()
