"""Vendor, generation and instruction sets of this machine's first processor, from Linux's /proc/cpuinfo."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def fields() -> dict[str, str]:
    """Return ``vendor_id``, ``cpu family``, ``model``, ``model name``, ``flags`` and others; empty except on Linux."""
    found: dict[str, str] = {}
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip() and "model name" in found:  # first core only; on ARM, the board's name comes last
                    break
                key, _, value = line.partition(":")
                found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return found


def vendor() -> str:
    """Return ``GenuineIntel``, ``AuthenticAMD``, …; empty if unknown."""
    return fields().get("vendor_id", "")


def family() -> int | None:
    """Return the vendor's number of the generation, such as 25 for AMD's Zen 3 and 4; None if unknown."""
    known = fields().get("cpu family", "")
    return int(known) if known.isdecimal() else None


def has(flag: str) -> bool:
    """Return whether the processor has the instructions that Linux calls ``flag``, such as ``amx_tile``."""
    return flag in fields().get("flags", "").split()


def name() -> str:
    """Return the name, with family and model if known: AMD EPYC is the name of several generations."""
    known = fields()
    found = known.get("model name") or known.get("Model") or platform.processor() or platform.machine()
    if {"cpu family", "model"} <= known.keys():
        found += f" (family {known['cpu family']}, model {known['model']})"
    return found
