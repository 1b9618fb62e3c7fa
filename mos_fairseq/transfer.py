"""Encoder outputs sent from a device to a server: the message, its length, and the effect of rounding.

A message is a header and then, output by output, numbers in row order: ``float32`` and ``float16`` as they are. In
``int8``, the rows' scales come first (4 bytes each: the row's largest absolute value), then each token's row as whole
numbers from -127 to 127. If a sentence is padded, a mask of one bit a token follows. All is little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import Subnet

TRANSFER_DTYPES = ("float32", "float16", "int8")
_HEADER = struct.Struct("<4sBBHHIH")  # magic, dtype, whether padded, outputs, sentences, tokens, width
_MAGIC = b"MoS1"
HEADER_BYTES = _HEADER.size
_BYTES = {"float32": 4, "float16": 2, "int8": 1}
_MOST_BYTES = 2**31
_FLOAT16 = 65504.0


def transfer_bytes(
    subnet: Subnet, src_len: int, dtype: str = "float32", sentences: int = 1, padded: bool = False
) -> int:
    """Return the length in bytes of a message: the encoder outputs of ``sentences`` sentences of ``src_len`` tokens,
    as many outputs as the decoder's widest span reads.

    Raises:
        InputError: the subnet has no encoder, or the dtype is unknown.
    """
    check_dtype(dtype)
    check_encoder([stack.name for stack in subnet.family.stacks], subnet.family.name)
    return _length(dtype, padded, max(subnet.cross_spans), sentences, src_len, subnet.width("encoder"))


def check_dtype(dtype: str) -> None:
    """Raise InputError for an unknown ``dtype``."""
    if dtype not in TRANSFER_DTYPES:
        raise InputError(f"transfer_dtype is {dtype}: allowed are {', '.join(TRANSFER_DTYPES)}")


def check_encoder(stacks: Sequence[str], family: str) -> None:
    """Raise InputError if the family has no encoder outputs to send."""
    if "encoder" not in stacks:
        raise InputError(f"models of family {family} have no encoder outputs to send to a server")


def _length(dtype: str, padded: bool, outputs: int, sentences: int, tokens: int, width: int) -> int:
    rows = sentences * tokens
    scales = 4 * rows if dtype == "int8" else 0
    return HEADER_BYTES + outputs * (rows * width * _BYTES[dtype] + scales) + (-(-rows // 8) if padded else 0)


def pack(outputs: Sequence[np.ndarray], padding: np.ndarray | None, dtype: str) -> bytes:
    """Return the message in bytes.

    Args:
        outputs: each [S, B, d], numbers.
        padding: [B, S], True at padding; None without padding.
    """
    tokens, sentences, width = outputs[0].shape
    index = TRANSFER_DTYPES.index(dtype)
    parts = [_HEADER.pack(_MAGIC, index, padding is not None, len(outputs), sentences, tokens, width)]
    for output in outputs:
        x = np.ascontiguousarray(output, dtype="<f4")
        if dtype == "int8":
            scale = np.abs(x).max(-1, keepdims=True)
            whole = np.rint(x / np.where(scale > 0, scale, 1) * 127)
            parts += [scale.astype("<f4").tobytes(), whole.astype("i1").tobytes()]
        elif dtype == "float16":
            parts.append(np.clip(x, -_FLOAT16, _FLOAT16).astype("<f2").tobytes())
        else:
            parts.append(x.tobytes())
    if padding is not None:
        parts.append(np.packbits(np.asarray(padding, dtype=bool).reshape(-1)).tobytes())
    return b"".join(parts)


def message_bytes(header: bytes) -> int:
    """Return the length of the whole message that begins with ``header``. Raises InputError if it is none."""
    return _length(*_read(header))


def _read(header: bytes) -> tuple[str, bool, int, int, int, int]:
    if len(header) < HEADER_BYTES:
        raise InputError("the received bytes are no message of encoder outputs")
    magic, index, padded, outputs, sentences, tokens, width = _HEADER.unpack(header[:HEADER_BYTES])
    if magic != _MAGIC or index >= len(TRANSFER_DTYPES) or padded > 1 or not outputs * sentences * tokens * width:
        raise InputError("the received bytes are no message of encoder outputs")
    found = (TRANSFER_DTYPES[index], bool(padded), outputs, sentences, tokens, width)
    if _length(*found) > _MOST_BYTES:
        raise InputError(f"the message is {_length(*found)} bytes long: allowed are up to {_MOST_BYTES}")
    return found


def unpack(message: bytes) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return (outputs, padding) as :func:`pack` takes them, in float32. Raises InputError for any other bytes."""
    if len(message) != message_bytes(message):
        raise InputError("the received bytes are no message of encoder outputs")
    dtype, padded, number, sentences, tokens, width = _read(message)
    shape, place, outputs = (tokens, sentences, width), HEADER_BYTES, []

    def take(kind: str, size: tuple[int, ...]) -> np.ndarray:
        nonlocal place
        count = int(np.prod(size))
        found = np.frombuffer(message, kind, count, place).reshape(size)
        place += found.nbytes
        return found.astype("f4") if kind != "u1" else found

    for _ in range(number):
        if dtype == "int8":
            scale = take("<f4", (*shape[:2], 1))
            outputs.append(take("i1", shape) * (scale / np.float32(127)))
        else:
            outputs.append(take({"float32": "<f4", "float16": "<f2"}[dtype], shape))
    if not padded:
        return outputs, None
    bits = np.unpackbits(take("u1", (-(-sentences * tokens // 8),)), count=sentences * tokens)
    return outputs, bits.astype(bool).reshape(sentences, tokens)
