"""When this package computes in another way than by torch's own operators: the thresholds of every such choice.

A processor gets the thresholds that were measured on its kind; of every other kind, torch's own libraries multiply.
``examples/studies/benchmarks/README.md`` has the measurements. ``MOS_FAIRSEQ_KERNELS=torch`` in the environment turns
every choice off; ``auto`` is the default.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from mos_fairseq import processor
from mos_fairseq.errors import InputError

SWITCH = "MOS_FAIRSEQ_KERNELS"
NEVER = sys.maxsize  # a threshold that nothing reaches


@dataclass(frozen=True)
class KernelPolicy:
    """The thresholds in force. A size that reaches a threshold is computed the other way; NEVER leaves it to torch.

    The defaults leave all products to torch. A "weight" is the part of a matrix that the active subnet uses, and its
    size a number of elements.

    Args:
        name: of the kind of processor, for files that record the policy.
        enabled: whether oneDNN may multiply at all, and whether code of this package computes what has no threshold:
            dropout's masks, attention with dropout, mixtures of experts and the label-smoothed loss.
        packed_rows, packed_rows_of_small: fewest rows of an input that oneDNN multiplies with a packed weight, in
            inference: by a weight of ``large_weight`` elements or more, and by a smaller one.
        large_weight: see ``packed_rows``.
        filled_weight: smallest packed weight for which an input of one or two rows is filled up to four.
        layout_rows: number of rows that a packed layout is chosen for; it serves any.
        training_multiplications: fewest multiplications of a product that oneDNN computes in training, with its
            gradients. oneDNN prepares for each new number of rows, which a small product does not make up for.
        training_copied_weight: largest weight that is copied for it where it is a slice of a matrix.
        gradient_rows: rows of a weight's gradient that are computed at a time: the output's gradient is transposed for
            it, and takes memory.
        transposed_router: whether a router's last layer is kept transposed, in inference.
        attention_queries, attention_keys: fewest queries times heads, and fewest keys of each, for which two batched
            products replace the fused kernel, where each query has a sequence of its own.
        cache_room: positions by which a cache of keys and values grows. Beam search copies the unused ones, too.
        remade_mixture: smallest merged weight that is dropped after the forward pass and made again in the backward
            pass: it saves memory.
        cpu_chunk, gpu_chunk: logits of a distillation loss that are worked on at a time. What is needed on the way
            stays in the cache of a CPU, and is small beside the logits on a GPU.
    """

    name: str
    enabled: bool = True
    packed_rows: int = NEVER
    packed_rows_of_small: int = NEVER
    large_weight: int = 1 << 18
    filled_weight: int = NEVER
    layout_rows: int = 5
    training_multiplications: int = NEVER
    training_copied_weight: int = 1 << 22
    gradient_rows: int = 4096
    transposed_router: bool = False
    attention_queries: int = NEVER
    attention_keys: int = 16
    cache_room: int = 4
    remade_mixture: int = 1 << 19
    cpu_chunk: int = 1 << 16
    gpu_chunk: int = 1 << 24

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the header of a file; None where a threshold is NEVER."""
        return {name: None if value == NEVER else value for name, value in asdict(self).items()}


# Nothing but torch's operators. What bounds memory on a GPU does so on a CPU.
TORCH = KernelPolicy("torch", enabled=False, cache_room=0, remade_mixture=NEVER, cpu_chunk=1 << 24)
# Processors that were not measured. What saves passes over memory does so on every one of them.
OTHER = KernelPolicy("other")
# x86 processors that were not measured. MKL's code for SSE 4.2, AVX2 and AVX-512 multiplies a transposed router in 0.2
# to 0.5 of the time, on a Zen 5.
X86 = replace(OTHER, name="x86", transposed_router=True)
# MKL does not use AVX-512 on AMD's processors. A new number of rows costs oneDNN 1.5 ms a product on Zen 4, and 0.2 to
# 0.5 ms on Zen 5, where it also gains twice as much.
ZEN4 = replace(
    X86,
    name="AMD Zen 4",
    packed_rows=1,
    packed_rows_of_small=2,
    filled_weight=1 << 20,
    training_multiplications=1 << 30,
    attention_queries=128,
)
ZEN5 = replace(ZEN4, name="AMD Zen 5", training_multiplications=1 << 27)
# Five rows gain, two lose, three and four were not measured; nor was training.
INTEL_AMX = replace(X86, name="Intel with AMX", packed_rows=5)


def policy_of(vendor: str, family: int | None, capability: str, has_amx: bool) -> KernelPolicy:
    """The policy of a kind of processor.

    Args:
        vendor, family: see :mod:`mos_fairseq.processor`.
        capability: the instruction sets that torch uses, by :func:`torch.backends.cpu.get_cpu_capability`.
        has_amx: whether the processor multiplies by AMX.
    """
    if capability not in ("AVX2", "AVX512"):
        return OTHER
    if capability == "AVX512" and vendor == "AuthenticAMD":
        return {25: ZEN4, 26: ZEN5}.get(family or 0, X86)
    return INTEL_AMX if capability == "AVX512" and vendor == "GenuineIntel" and has_amx else X86


def chosen() -> KernelPolicy:
    """The policy that MOS_FAIRSEQ_KERNELS and this machine's processor call for.

    Raises:
        InputError: MOS_FAIRSEQ_KERNELS is neither auto nor torch.
    """
    value = os.environ.get(SWITCH) or "auto"
    if value not in ("auto", "torch"):
        raise InputError(f"{SWITCH} is {value} in the environment: allowed are auto and torch")
    if value == "torch":
        return TORCH
    capability = torch.backends.cpu.get_cpu_capability()
    return policy_of(processor.vendor(), processor.family(), capability, processor.has("amx_tile"))


_current = chosen()


def policy() -> KernelPolicy:
    """The policy in force."""
    return _current


@contextmanager
def using(other: KernelPolicy) -> Iterator[KernelPolicy]:
    """Put ``other`` in force, in all threads, until the context ends."""
    global _current
    before, _current = _current, other
    try:
        yield other
    finally:
        _current = before
