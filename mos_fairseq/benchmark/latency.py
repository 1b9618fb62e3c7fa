"""Measured latency of subnets: static twins, timed while fairseq's own beam search translates one batch.

Two things spoil such figures: the machine drifts (clock, temperature, neighbours), and single runs are disturbed. So
a reference subnet runs in turn with each measured one, and its own drift is divided out of the result; and a trimmed
mean is taken.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import fairseq
import torch
from fairseq.data import Dictionary
from fairseq.sequence_generator import SequenceGenerator

from mos_fairseq import processor
from mos_fairseq.benchmark.latency_options import LatencyOptions
from mos_fairseq.benchmark.measured import trimmed_mean
from mos_fairseq.models import TransformerSubnetConfig, TransformerSubnetModel
from mos_fairseq.search_space import Subnet

_TRIM = 0.2  # of the iterations at either end


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one batch: trimmed means over the iterations, encoder and decoder (with the search) apart."""

    encoder_ms: float
    decoder_ms: float

    @property
    def latency_ms(self) -> float:
        """Encoder and decoder together."""
        return self.encoder_ms + self.decoder_ms


class SubnetTimer:
    """A subnet's twin with random weights, ready to translate a batch of random words again and again."""

    def __init__(self, subnet: Subnet, options: LatencyOptions, words: Dictionary) -> None:
        self.options = options
        generator = torch.Generator().manual_seed(1)
        cfg = TransformerSubnetConfig(
            subnet=subnet.key,
            share_all_embeddings=options.share_all_embeddings,
            share_decoder_input_output_embed=options.share_decoder_input_output_embed,
            encoder_normalize_before=options.encoder_normalize_before,
            decoder_normalize_before=options.decoder_normalize_before,
            layernorm_embedding=options.layernorm_embedding,
            max_source_positions=max(1024, options.src_len),
            max_target_positions=max(1024, options.tgt_len + 1),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = TransformerSubnetModel.from_subnet(cfg, subnet, words, words)
        self.model = model.eval().to(device=options.device, dtype=getattr(torch, options.dtype))
        self.model.decoder.need_attn = False  # as in fairseq-generate
        longest = options.tgt_len - 1  # fairseq adds the step that ends the sentence
        self.generator = SequenceGenerator(
            [self.model], words, beam_size=options.beam, max_len_a=0, max_len_b=longest, min_len=longest
        )
        shape = (options.batch_size, options.src_len)
        tokens = torch.randint(words.nspecial, len(words), shape, generator=generator)
        tokens[:, -1] = words.eos()
        lengths = torch.full((options.batch_size,), options.src_len)
        net_input = {"src_tokens": tokens.to(options.device), "src_lengths": lengths.to(options.device)}
        self.sample = {"net_input": net_input}
        self._encoder_seconds = 0.0
        self._encode = self.model.encoder.forward_torchscript
        self.model.encoder.forward_torchscript = self._timed_encoder

    def _timed_encoder(self, net_input: dict[str, torch.Tensor]) -> Any:
        begin = self._now()
        result = self._encode(net_input)
        self._encoder_seconds = self._now() - begin
        return result

    def _now(self) -> float:
        device = torch.device(self.options.device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    @torch.inference_mode()
    def run(self) -> Latency:
        """Translate the batch once."""
        begin = self._now()
        self.generator.generate([self.model], self.sample)
        total = self._now() - begin
        return Latency(1000 * self._encoder_seconds, 1000 * (total - self._encoder_seconds))


def time_in_turn(reference: SubnetTimer, other: SubnetTimer, on_round: Callable[[], object] = lambda: None):
    """(reference's, other's) lists of :class:`Latency`, run in turn, warm-up left out."""
    options = other.options
    found: tuple[list[Latency], list[Latency]] = ([], [])
    for index in range(options.warmup + options.iterations):
        pair = reference.run(), other.run()
        if index >= options.warmup:
            found[0].append(pair[0])
            found[1].append(pair[1])
        on_round()
    return found


def summarise(latencies: list[Latency]) -> Latency:
    """Trimmed means."""
    return Latency(
        trimmed_mean([latency.encoder_ms for latency in latencies], _TRIM),
        trimmed_mean([latency.decoder_ms for latency in latencies], _TRIM),
    )


def measure_subnet(subnet: Subnet, reference: SubnetTimer, words: Dictionary) -> dict[str, Any]:
    """One line of a latency file, as timed.

    Args:
        reference: the timer of the reference subnet.

    Returns:
        ``raw_latency_ms``, ``raw_encoder_ms``, ``raw_decoder_ms``; ``reference_ms``: the reference's latency in the
        same seconds; ``std_ms``: standard deviation of the totals.
    """
    timer = SubnetTimer(subnet, reference.options, words)
    references, latencies = time_in_turn(reference, timer)
    raw = summarise(latencies)
    return {
        "subnet": subnet.to_dict(),
        "raw_latency_ms": raw.latency_ms,
        "raw_encoder_ms": raw.encoder_ms,
        "raw_decoder_ms": raw.decoder_ms,
        "reference_ms": summarise(references).latency_ms,
        "std_ms": statistics.stdev(latency.latency_ms for latency in latencies),
    }


def machine(name: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """What figures depend on besides the subnet: of the device with torch's name ``name``, and ``threads`` of torch."""
    device = torch.device(name)
    return {
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor.name(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fairseq": fairseq.__version__,
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "platform": platform.platform(),
    }


def options_dict(options: LatencyOptions) -> dict[str, Any]:
    """The options as plain values, for a file's header."""
    return asdict(options)
