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
from mos_fairseq.errors import InputError
from mos_fairseq.models import TransformerSubnetConfig, TransformerSubnetModel
from mos_fairseq.search_space import Subnet

MIN_ITERATIONS = 5
TRIM = 0.2  # of the iterations at either end
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class LatencyOptions:
    """What is measured.

    Args:
        vocab_size: entries of the (joined) dictionary.
        batch_size: sentences translated at once.
        src_len, tgt_len: tokens of each sentence, its end included; beam search is held to exactly ``tgt_len`` steps.
        beam: width of the beam search; 1 is greedy.
        threads: of torch on a CPU; None leaves torch's own choice.
        warmup, iterations: runs that do not count, and that do.

    Raises:
        InputError: a value out of range, an unknown dtype or a device that is not there.
    """

    vocab_size: int
    batch_size: int = 1
    src_len: int = 30
    tgt_len: int = 30
    beam: int = 5
    device: str = "cpu"
    threads: int | None = None
    dtype: str = "float32"
    warmup: int = 1
    iterations: int = 5
    share_all_embeddings: bool = False
    share_decoder_input_output_embed: bool = False
    encoder_normalize_before: bool = False
    decoder_normalize_before: bool = False
    layernorm_embedding: bool = False

    def __post_init__(self) -> None:
        least = {"vocab_size": 5, "tgt_len": 2, "warmup": 0, "iterations": MIN_ITERATIONS}
        for name in ("vocab_size", "batch_size", "src_len", "tgt_len", "beam", "threads", "warmup", "iterations"):
            value = getattr(self, name)
            if value is not None and value < least.get(name, 1):
                raise InputError(f"{name} is {value}: allowed are whole numbers from {least.get(name, 1)}")
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype}: allowed are {', '.join(DTYPES)}")
        if 2 * self.beam >= self.vocab_size:
            raise InputError(f"beam is {self.beam}: allowed is less than half the vocabulary of {self.vocab_size}")
        try:
            if torch.device(self.device).type not in ("cpu", "cuda"):
                raise InputError(f"device is {self.device}: allowed are cpu and cuda, as in cuda:0")
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError):
            raise InputError(f"device is {self.device}: torch has no such device here") from None


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


def trimmed_mean(values: list[float], trim: float = TRIM) -> float:
    """Mean without the part ``trim`` of the values at either end. ValueError where one is not finite or none is."""
    if not values or not all(0 < value < float("inf") for value in values):
        raise ValueError(f"latencies must be positive and finite, got {values[:3]}")
    cut = int(trim * len(values))
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


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
        trimmed_mean([latency.encoder_ms for latency in latencies]),
        trimmed_mean([latency.decoder_ms for latency in latencies]),
    )


def measure_subnet(subnet: Subnet, reference: SubnetTimer, baseline_ms: float, words: Dictionary) -> dict[str, Any]:
    """One line of a latency file.

    Args:
        reference: the timer of the reference subnet.
        baseline_ms: the reference's latency that ``latency_ms`` is corrected to.

    Returns:
        ``latency_ms``, ``encoder_ms``, ``decoder_ms``: corrected by baseline over the reference's latency in the same
        minutes, ``reference_ms``; ``raw_…``: as timed; ``std_ms``: standard deviation of the raw totals.
    """
    timer = SubnetTimer(subnet, reference.options, words)
    references, latencies = time_in_turn(reference, timer)
    raw, reference_ms = summarise(latencies), summarise(references).latency_ms
    factor = baseline_ms / reference_ms
    return {
        "subnet": subnet.to_dict(),
        "latency_ms": factor * raw.latency_ms,
        "encoder_ms": factor * raw.encoder_ms,
        "decoder_ms": factor * raw.decoder_ms,
        "raw_latency_ms": raw.latency_ms,
        "raw_encoder_ms": raw.encoder_ms,
        "raw_decoder_ms": raw.decoder_ms,
        "reference_ms": reference_ms,
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
