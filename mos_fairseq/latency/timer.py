"""Measure the latency of subnets: their static twins are timed at one of their family's workloads.

Two effects disturb such figures: the machine drifts (clock, temperature, neighbours), and single runs have outliers. So
a reference subnet runs in turn with each measured one, and its drift is divided out of the result; and a trimmed mean
is taken.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import fairseq
import torch
from fairseq.data import Dictionary

from mos_fairseq import processor
from mos_fairseq.device import gpu_clocks, gpu_facts
from mos_fairseq.latency.measured import trimmed_mean
from mos_fairseq.latency.options import LatencyOptions
from mos_fairseq.latency.workloads import WORKLOADS, Latency
from mos_fairseq.model_options import ModelOptions
from mos_fairseq.models import twin_of
from mos_fairseq.search_space import Subnet

_TRIM = 0.2  # share of iterations dropped at either end


class SubnetTimer:
    """A subnet's twin with random weights and a fixed workload.

    Args:
        options: with the workload; None is the family's default.
        words: dictionary of all stacks.
    """

    def __init__(self, subnet: Subnet, options: LatencyOptions, words: Dictionary) -> None:
        self.options = options = options.of_family(subnet.family)
        twin = twin_of(subnet.family)
        positions = {"source": options.src_len, "target": options.tgt_len + 1}
        stacks = subnet.family.stacks
        values: dict[str, Any] = {stack.positions: max(1024, positions[stack.tokens]) for stack in stacks}
        values |= {name: getattr(options, name) for name in ModelOptions.values_of(twin.config)}
        cfg = twin.config(subnet=subnet.key, **values)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = twin.from_subnet(cfg, subnet, *[words] * len(stacks))
        self.model = model.eval().to(device=options.device, dtype=getattr(torch, options.dtype))
        self.workload = WORKLOADS[options.workload or subnet.family.workloads[0]](self.model, options, words)

    @torch.inference_mode()
    def run(self) -> Latency:
        """Run the workload once."""
        return self.workload.run()


def time_in_turn(reference: SubnetTimer, other: SubnetTimer, on_round: Callable[[], object] = lambda: None):
    """Run both in turn, and return the (reference's, other's) lists of :class:`Latency` without warm-up."""
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
    encoder = [latency.encoder_ms for latency in latencies if latency.encoder_ms is not None]
    return Latency(
        trimmed_mean(encoder, _TRIM) if encoder else None,
        trimmed_mean([latency.decoder_ms for latency in latencies], _TRIM),
    )


def measure_subnet(subnet: Subnet, reference: SubnetTimer, words: Dictionary) -> dict[str, Any]:
    """Measure one line of a latency file.

    Args:
        reference: the timer of the reference subnet.

    Returns:
        ``raw_latency_ms``; ``raw_encoder_ms`` and ``raw_decoder_ms`` if they are timed; ``reference_ms``: the
        reference's latency in the same seconds; ``std_ms``: standard deviation of the totals. On a GPU also its clocks
        afterwards, if nvidia-smi reports them: ``sm_clock_mhz``, ``memory_clock_mhz``.
    """
    timer = SubnetTimer(subnet, reference.options, words)
    references, latencies = time_in_turn(reference, timer)
    raw = summarise(latencies)
    device = torch.device(reference.options.device)
    clocks = gpu_clocks(device.index) if device.type == "cuda" else {}
    apart = {} if raw.encoder_ms is None else {"raw_encoder_ms": raw.encoder_ms, "raw_decoder_ms": raw.decoder_ms}
    return {
        "subnet": subnet.to_dict(),
        "raw_latency_ms": raw.latency_ms,
        **apart,
        "reference_ms": summarise(references).latency_ms,
        "std_ms": statistics.stdev(latency.latency_ms for latency in latencies),
        **clocks,
    }


def machine(name: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """Return the facts of the machine that figures depend on: of the device with torch's ``name``, and ``threads``."""
    device = torch.device(name)
    gpu = {"cuda": torch.version.cuda, **gpu_facts(device.index)} if device.type == "cuda" else {}
    return {
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor.name(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fairseq": fairseq.__version__,
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "platform": platform.platform(),
        **gpu,
    }


def options_dict(options: LatencyOptions) -> dict[str, Any]:
    """Return the options as plain values, for a file's header. Files without a workload measured beam search. Files
    without ``untie_weights_roberta``, a later option, measured models without it."""
    values = asdict(options)
    younger = {"workload": "beam_search", "untie_weights_roberta": False}
    return {name: value for name, value in values.items() if name not in younger or value != younger[name]}
