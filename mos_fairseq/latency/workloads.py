"""The timed work of a static twin, by name; a family lists the workloads that its twins support.

``beam_search``: fairseq's beam search translates one batch. ``generate``: the same search continues one batch of empty
sentences, token by token, as a language model does. ``forward``: one forward pass of one batch, as in scoring.
``features``: the same without the projection to the vocabulary, as in classification.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor, nn

from mos_fairseq.latency.options import LatencyOptions


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one batch: of the encoder (None if it is not timed), and of the rest."""

    encoder_ms: float | None
    decoder_ms: float

    @property
    def latency_ms(self) -> float:
        """Both together."""
        return (self.encoder_ms or 0.0) + self.decoder_ms


class _Workload:
    """One batch of random words, which ``model`` processes repeatedly."""

    def __init__(self, model: nn.Module, options: LatencyOptions, words: Dictionary) -> None:
        self.model, self.options, self.words = model, options, words
        self._random = torch.Generator().manual_seed(1)
        self.prepare()

    def prepare(self) -> None:
        """Make the batch."""
        raise NotImplementedError

    def run(self) -> Latency:
        """Run the workload once."""
        raise NotImplementedError

    def tokens(self, length: int) -> Tensor:
        """Return random sentences [B, length] with an end symbol."""
        shape = (self.options.batch_size, length)
        tokens = torch.randint(self.words.nspecial, len(self.words), shape, generator=self._random)
        tokens[:, -1] = self.words.eos()
        return tokens.to(self.options.device)

    def lengths(self, tokens: Tensor) -> Tensor:
        """[B]."""
        return torch.full((tokens.size(0),), tokens.size(1)).to(tokens.device)

    def now(self) -> float:
        """Return the time in seconds once the device has finished its work."""
        device = torch.device(self.options.device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def timed(self, work: Callable[[], object]) -> float:
        """Milliseconds."""
        begin = self.now()
        work()
        return 1000 * (self.now() - begin)


class _Search(_Workload):
    """fairseq's beam search with exactly ``tgt_len`` steps."""

    def searching(self, src_tokens: Tensor) -> Callable[[], object]:
        """Return a function that searches once."""
        self.model.decoder.need_attn = False  # as in fairseq-generate
        longest = self.options.tgt_len - 1  # fairseq adds the step that ends the sentence
        search = SequenceGenerator(
            [self.model], self.words, beam_size=self.options.beam, max_len_a=0, max_len_b=longest, min_len=longest
        )
        sample = {"net_input": {"src_tokens": src_tokens, "src_lengths": self.lengths(src_tokens)}}
        return lambda: search.generate([self.model], sample)


class BeamSearch(_Search):
    """Translate one batch; the encoder is timed separately."""

    def prepare(self) -> None:
        self._search = self.searching(self.tokens(self.options.src_len))
        self._encoder_ms = 0.0
        self._encode = self.model.encoder.forward_torchscript
        self.model.encoder.forward_torchscript = self._timed_encoder

    def _timed_encoder(self, net_input: dict[str, Tensor]) -> Any:
        begin = self.now()
        result = self._encode(net_input)
        self._encoder_ms = 1000 * (self.now() - begin)
        return result

    def run(self) -> Latency:
        total = self.timed(self._search)
        return Latency(self._encoder_ms, total - self._encoder_ms)


class Generate(_Search):
    """Continue empty sentences."""

    def prepare(self) -> None:
        self._search = self.searching(self.tokens(1))

    def run(self) -> Latency:
        return Latency(None, self.timed(self._search))


class Forward(_Workload):
    """One forward pass of ``src_len`` source tokens if there is an encoder, and of ``tgt_len`` target tokens if there
    is a decoder."""

    def prepare(self) -> None:
        self._inputs: dict[str, Any] = {}
        if hasattr(self.model, "decoder"):
            self._inputs["prev_output_tokens"] = self.tokens(self.options.tgt_len)
        if hasattr(self.model, "encoder"):
            sources = self.tokens(self.options.src_len)
            self._inputs |= {"src_tokens": sources, "src_lengths": self.lengths(sources)}
        else:
            self._inputs = {"src_tokens": self._inputs["prev_output_tokens"]}

    def run(self) -> Latency:
        return Latency(None, self.timed(lambda: self.model(**self._inputs)))


class Features(Forward):
    """The same without the projection to the vocabulary."""

    def prepare(self) -> None:
        super().prepare()
        self._inputs["features_only"] = True


WORKLOADS: dict[str, type[_Workload]] = {
    "beam_search": BeamSearch,
    "generate": Generate,
    "forward": Forward,
    "features": Features,
}
