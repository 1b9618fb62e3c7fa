"""Split computing: the encoder runs on a device, the decoder on a server; encoder outputs are sent once a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.latency.predictor import LatencyPredictor
from mos_fairseq.search_space import Subnet
from mos_fairseq.transfer import check_dtype, transfer_bytes

SPLIT_KEYS = ("encoder_ms", "decoder_ms", "transfer_bytes", "split_latency_ms")
_TOKEN_BYTES = 4  # per token of a sentence sent as text
_MAY_DIFFER = {"device", "threads", "dtype", "warmup", "iterations"}  # between two machines


@dataclass(frozen=True)
class SplitLatency:
    """Cost of a sentence that is encoded on the device and decoded on the server.

    Args:
        device, server: predictors of both machines, each with the parts ``encoder_ms`` and ``decoder_ms``.
        bandwidth_mbps: bandwidth of the connection, in megabits a second; may be infinite.
        rtt_ms: round-trip time of the connection.
        transfer_dtype: dtype in which the encoder's outputs are sent.

    Raises:
        InputError: a predictor lacks the parts; both were measured with different sentences, beams or models; or a
            number is out of range.
    """

    device: LatencyPredictor
    server: LatencyPredictor
    bandwidth_mbps: float
    rtt_ms: float = 0.0
    transfer_dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.bandwidth_mbps > 0:
            raise InputError(f"bandwidth_mbps is {self.bandwidth_mbps}: allowed are numbers above 0, and inf")
        at_least(0.0, rtt_ms=self.rtt_ms)
        check_dtype(self.transfer_dtype)
        for name, predictor in (("DEVICE", self.device), ("SERVER", self.server)):
            if not predictor.parts:
                raise InputError(
                    f"split {name}: encoder and decoder are not predicted apart; fit it with --target split"
                )
        if self.device.space != self.server.space:
            raise InputError("split: DEVICE and SERVER were measured on different search spaces")
        one, two = (predictor.measured.get("options", {}) for predictor in (self.device, self.server))
        for name in {**one, **two}:
            if name not in _MAY_DIFFER and one.get(name) != two.get(name):
                raise InputError(
                    f"split: DEVICE was measured with {name}={one.get(name)}, SERVER with {two.get(name)}: their times "
                    "do not measure the same work"
                )

    @property
    def _sentences(self) -> tuple[int, int]:
        """Return (tokens of a source sentence, sentences in a batch) of the measurements."""
        options = self.device.measured.get("options", {})
        try:
            return int(options["src_len"]), int(options["batch_size"])
        except (KeyError, TypeError, ValueError):
            raise InputError("split DEVICE: it lacks the length of its sentences") from None

    def sending_ms(self, number: int) -> float:
        """Return the milliseconds to send ``number`` bytes, without the round trip."""
        return 8 * number / (1000 * self.bandwidth_mbps)

    def costs(self, subnets: Sequence[Subnet]) -> list[dict[str, float]]:
        """Return ``SPLIT_KEYS`` of each subnet: the device's encoder and the server's decoder in ms, bytes sent, and
        the sum with the round trip. The result sent back, a line of text, is not counted."""
        length, sentences = self._sentences
        encoder = self.device.predict_parts(subnets)["encoder_ms"].tolist()
        decoder = self.server.predict_parts(subnets)["decoder_ms"].tolist()
        found = []
        for subnet, encoder_ms, decoder_ms in zip(subnets, encoder, decoder, strict=True):
            size = transfer_bytes(subnet, length, self.transfer_dtype, sentences)
            total = encoder_ms + self.rtt_ms + self.sending_ms(size) + decoder_ms
            values = (encoder_ms, decoder_ms, size, total)
            found.append(dict(zip(SPLIT_KEYS, values, strict=True)))
        return found

    def placements(self, subnet: Subnet) -> dict[str, dict[str, float]]:
        """Return the milliseconds of one subnet in three placements: all on the device, all on the server (the sentence
        is sent, 4 bytes a token), and split. Each has ``encoder_ms``, ``rtt_ms``, ``sending_ms``, ``decoder_ms`` and
        their sum ``total_ms``."""
        length, sentences = self._sentences
        (split,) = self.costs([subnet])
        here, there = (
            {key: float(values[0]) for key, values in predictor.predict_parts([subnet]).items()}
            for predictor in (self.device, self.server)
        )
        text = self.sending_ms(_TOKEN_BYTES * length * sentences)
        sent = self.sending_ms(int(split["transfer_bytes"]))
        rows = {
            "device": (here["encoder_ms"], 0.0, 0.0, here["decoder_ms"]),
            "server": (there["encoder_ms"], self.rtt_ms, text, there["decoder_ms"]),
            "split": (here["encoder_ms"], self.rtt_ms, sent, there["decoder_ms"]),
        }
        names = ("encoder_ms", "rtt_ms", "sending_ms", "decoder_ms")
        return {name: dict(zip(names, row, strict=True)) | {"total_ms": sum(row)} for name, row in rows.items()}
