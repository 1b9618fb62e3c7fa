"""Measure the peak memory of a variant in a process of its own: resident, or allocated on a GPU."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mos_fairseq.benchmark.expected import TrainingBatch, expected_bytes, kept_weights
from mos_fairseq.benchmark.options import SpeedOptions
from mos_fairseq.benchmark.timing import Section
from mos_fairseq.benchmark.variants import Variants
from mos_fairseq.modules import kernels
from mos_fairseq.python import python_command, python_environment
from mos_fairseq.search_space import SearchSpace

_STEPS = 3  # the first step allocates gradients and Adam's state
_PROCESSES = 3  # per variant: fragmentation differs by a few per cent


@dataclass
class MemorySection(Section):
    """Bytes in place of seconds; the median of several processes.

    ``expected``: bytes by the formula of :mod:`mos_fairseq.benchmark.expected`. Resident memory has more, by what
    malloc holds between tensors. ``parameters``: of supernets, their number.
    """

    expected: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)

    def _row(self, name: str) -> dict:
        median, base = (statistics.median(self.seconds[key]) for key in (name, self.base))
        row = {"variant": name, "peak_mib": round(median / 2**20, 1)}
        if name in self.expected:
            row["expected_mib"] = round(self.expected[name] / 2**20, 1)
        if name in self.parameters:
            row["parameters"] = self.parameters[name]
        if name != self.base:
            row["ratio"] = round(median / base, 4)
        if name in self.targets:
            row["target"] = self.targets[name]
        return row

    def to_dict(self) -> dict:
        """Return the section as plain values."""
        return {"title": self.title, "base": self.base, "rows": self.rows(), "bytes": self.seconds}


def memory_sections(variants: Variants, on_round: Callable[[], object]) -> Iterator[Section]:
    """Training steps with Adam, in stock fairseq's sizes and in the space's."""
    title = "peak memory of updates"
    yield memory_section(variants, on_round, f"{title} in stock fairseq's sizes", ("stock", "none as stock"), {})
    yield memory_section(variants, on_round, title, ("none", "layer", "neuron"), {"neuron": 1.40})


def memory_section(
    variants: Variants, on_round: Callable[[], object], title: str, names: Sequence[str], targets: Mapping[str, float]
) -> MemorySection:
    """Training steps with Adam of the variants ``names``, against the first."""
    found: dict[str, list[Any]] = {name: [] for name in names}
    sizes = {name: _sizes(variants, name) for name in names}
    parameters = {name: variants.num_parameters(mixture, space) for name, (space, mixture) in sizes.items()}
    expected = {name: _expected(variants, *sizes[name], number) for name, number in parameters.items()}
    for _ in range(_PROCESSES):
        for name in names:
            found[name].append(_measure(variants, name))
            on_round()
    return MemorySection(title, found, names[0], targets=targets, expected=expected, parameters=parameters)


def _sizes(variants: Variants, name: str) -> tuple[SearchSpace, str]:
    """Space and mixture. Stock fairseq is a network of the same sizes."""
    in_stock_sizes = name in ("stock", "none as stock")
    return (variants.stock_space, "none") if in_stock_sizes else (variants.space, name)


def _expected(variants: Variants, space: SearchSpace, mixture: str, num_parameters: int) -> int:
    """Bytes by formula."""
    sample, on_gpu = variants.batch(), variants.options.device.startswith("cuda")
    source, target = (tokens.numel() for tokens in (sample["net_input"]["src_tokens"], sample["target"]))
    batch = TrainingBatch(source, target, variants.options.vocab_size, on_gpu=on_gpu)
    kept = 0 if mixture == "none" else kept_weights(space.largest(), kernels.policy().remade_mixture)
    return expected_bytes(num_parameters, space.largest(), batch, kept)


def _measure(variants: Variants, name: str) -> int:
    """Return the bytes that updates of ``name`` add to a process that has imported everything."""
    order = {"space": variants.space.to_dict(), "options": asdict(variants.options), "name": name}
    found = subprocess.run(
        python_command("-c", f"from {__name__} import main; main()"),
        input=json.dumps(order),
        capture_output=True,
        text=True,
        env=python_environment(),
    )
    if found.returncode:
        raise RuntimeError(f"measuring the memory of {name} failed: {found.stderr.strip()[-2000:]}")
    return int(found.stdout.split()[-1])


def _resident(key: str) -> int:
    """Return this process's memory in bytes: ``VmRSS`` is the current, ``VmHWM`` the peak so far (Linux)."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


def main() -> None:
    """Read an order from standard input, train, and print the bytes."""
    import torch
    import torch._dynamo  # noqa: F401  the first optimizer imports it: it would count as the model's

    order = json.load(sys.stdin)
    options = SpeedOptions(**order["options"])
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    variants = Variants(SearchSpace.from_dict(order["space"]), options)
    on_gpu = options.device.startswith("cuda")
    before = 0 if on_gpu else _resident("VmRSS")
    if order["name"] == "stock":
        model = variants.stock()
    elif order["name"] == "none as stock":
        model = variants.supernet("none", space=variants.stock_space)
    else:
        model = variants.supernet(order["name"])
    step = variants.training_step(model, "adam_fused")
    for _ in range(_STEPS):
        step()
    print(torch.cuda.max_memory_allocated(options.device) if on_gpu else _resident("VmHWM") - before)
