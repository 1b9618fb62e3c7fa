"""Messages between device and server: exact in float32, of the predicted length; all other input is refused."""

import numpy as np
import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.transfer import HEADER_BYTES, TRANSFER_DTYPES, message_bytes, pack, transfer_bytes, unpack
from tests.helpers import small_space

SPACE = small_space()
RANDOM = np.random.default_rng(1)
PADDING = np.array([[False] * 7, [True] * 2 + [False] * 5, [False] * 6 + [True]])


def outputs_of(subnet, tokens=7, sentences=3) -> list[np.ndarray]:
    shape = (tokens, sentences, subnet.encoder_embed_dim)
    return [RANDOM.normal(size=shape).astype("f4") for _ in range(max(subnet.cross_spans))]


@pytest.mark.parametrize("dtype", TRANSFER_DTYPES)
def test_bytes_are_foretold(dtype):
    sizes = set()
    for index in range(20):
        subnet = SPACE.sample_subnet("transfer", index)
        for padding in (None, PADDING):
            message = pack(outputs_of(subnet), padding, dtype)
            foretold = transfer_bytes(subnet, 7, dtype, 3, padding is not None)
            assert len(message) == foretold == message_bytes(message[:HEADER_BYTES])
        sizes.add(foretold)
    assert len(sizes) > 2


@pytest.mark.parametrize(("dtype", "worst"), [("float32", 0.0), ("float16", 6e-4), ("int8", 0.5 / 127 + 1e-6)])
def test_what_arrives_is_what_was_sent_but_for_rounding(dtype, worst):
    outputs = outputs_of(SPACE.largest())
    outputs[0][2, 1] = 0
    outputs[0][3, 1] *= 1000  # a row with its own scale
    found, padding = unpack(pack(outputs, PADDING, dtype))
    assert np.array_equal(padding, PADDING) and len(found) == len(outputs)
    for one, other in zip(outputs, found, strict=True):
        scale = np.abs(one).max(-1, keepdims=True)
        assert other.dtype == np.float32 and (np.abs(one - other) <= worst * scale).all()
    assert (found[0][2, 1] == 0).all()
    assert unpack(pack(outputs, None, dtype))[1] is None
    huge = unpack(pack([np.full((1, 1, 2), 1e6)], None, "float16"))[0][0]
    assert np.isfinite(huge).all()


def test_what_is_no_message_is_refused():
    message = pack(outputs_of(SPACE.smallest()), None, "int8")
    for bad in (b"", b"GET / HTTP/1.1\r\n\r\n", message[:-1], message + b"0", message[:4] + b"\x09" + message[5:]):
        with pytest.raises(InputError, match="no message of encoder outputs"):
            unpack(bad)
        if len(bad) < HEADER_BYTES or bad[:4] != message[:4]:
            with pytest.raises(InputError, match="no message of encoder outputs"):
                message_bytes(bad)
    with pytest.raises(InputError, match="bytes long: allowed are up to"):
        message_bytes(message[:6] + b"\xff" * 10)


def test_what_has_no_encoder_sends_nothing():
    with pytest.raises(InputError, match="family decoder_only have no encoder"):
        transfer_bytes(SearchSpace.from_spec("tiny_lm").largest(), 7)
    with pytest.raises(InputError, match="transfer_dtype is int4: allowed are float32, float16, int8"):
        transfer_bytes(SPACE.largest(), 7, "int4")
