"""Devices by torch's names, and what a GPU's figures depend on. Importing it needs no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from mos_fairseq.errors import InputError

# of nvidia-smi: what stays as it is while the machine is set up so, under the names that files give it
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
    import torch  # only now: a command's mistakes are told without it

    try:
        if torch.device(name).type not in ("cpu", "cuda"):
            raise InputError(f"device is {name}: allowed are cpu and cuda, as in cuda:0")
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError):
        raise InputError(f"device is {name}: torch has no such device here") from None


def gpu_facts(index: int | None) -> dict[str, str]:
    """Driver, highest clocks and limit of power of a GPU, with their units; empty without nvidia-smi."""
    return _asked(index, _FIXED, "csv,noheader")


def gpu_clocks(index: int | None) -> dict[str, float]:
    """Its clocks at this moment in MHz; empty without nvidia-smi."""
    found: dict[str, float] = {}
    for name, value in _asked(index, _NOW, "csv,noheader,nounits").items():
        try:
            found[name] = float(value)
        except ValueError:  # [N/A]
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
    """The driver's number or name of torch's GPU ``index``: CUDA_VISIBLE_DEVICES may hide others."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    index = index or 0
    return visible[index] if index < len(visible) else str(index)
