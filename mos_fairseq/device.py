"""Devices by torch's names, and the GPU facts that measurements depend on. Importing this module needs no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from mos_fairseq.errors import InputError

# facts from nvidia-smi that stay constant while the machine's setup does, keyed by the names used in files
_FIXED = {
    "driver": "driver_version",
    "max_sm_clock": "clocks.max.sm",
    "max_memory_clock": "clocks.max.memory",
    "power_limit": "power.limit",
}
_NOW = {"sm_clock_mhz": "clocks.sm", "memory_clock_mhz": "clocks.mem"}


def check_device(name: str) -> None:
    """Raise InputError unless ``name`` is a CPU or a GPU that torch finds here."""
    if name == "cpu":
        return
    import torch  # late: mistakes in a command are reported without torch

    try:
        if torch.device(name).type not in ("cpu", "cuda"):
            raise InputError(f"device is {name}: allowed are cpu and cuda, as in cuda:0")
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError):
        raise InputError(f"device is {name}: torch has no such device here") from None


def gpu_facts(index: int | None) -> dict[str, str]:
    """Return driver, highest clocks and power limit of a GPU, with their units; empty without nvidia-smi."""
    return _asked(index, _FIXED, "csv,noheader")


def gpu_clocks(index: int | None) -> dict[str, float]:
    """Return the GPU's current clocks in MHz; empty without nvidia-smi."""
    found: dict[str, float] = {}
    for name, value in _asked(index, _NOW, "csv,noheader,nounits").items():
        try:
            found[name] = float(value)
        except ValueError:  # nvidia-smi prints [N/A]
            continue
    return found


def _asked(index: int | None, names: dict[str, str], form: str) -> dict[str, str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = [program, f"--query-gpu={','.join(names.values())}", f"--format={form}", f"--id={_driver_index(index)}"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values: list[Any] = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(names, values, strict=True)) if not done.returncode and len(values) == len(names) else {}


def _driver_index(index: int | None) -> str:
    """Return the driver's number or name of torch's GPU ``index``; CUDA_VISIBLE_DEVICES may hide other GPUs."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    index = index or 0
    return visible[index] if index < len(visible) else str(index)
