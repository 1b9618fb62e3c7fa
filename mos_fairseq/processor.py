"""Maker, generation and instruction sets of this machine's first processor, as Linux gives them in /proc/cpuinfo."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def fields() -> dict[str, str]:
    """``vendor_id``, ``cpu family``, ``model``, ``model name``, ``flags`` and others; none but on Linux."""
    found: dict[str, str] = {}
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip() and "model name" in found:  # the first core's; ARM's name of the board comes last
                    break
                key, _, value = line.partition(":")
                found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return found


def vendor() -> str:
    """``GenuineIntel``, ``AuthenticAMD``, …; empty where it is not known."""
    return fields().get("vendor_id", "")


def family() -> int | None:
    """The vendor's number of the generation, as 25 of AMD's Zen 3 and 4; None where it is not known."""
    known = fields().get("cpu family", "")
    return int(known) if known.isdecimal() else None


def has(flag: str) -> bool:
    """Whether the processor has the instructions that Linux calls ``flag``, as ``amx_tile``."""
    return flag in fields().get("flags", "").split()


def name() -> str:
    """Its name, with family and model where given: processors of several generations call themselves AMD EPYC."""
    known = fields()
    found = known.get("model name") or known.get("Model") or platform.processor() or platform.machine()
    if {"cpu family", "model"} <= known.keys():
        found += f" (family {known['cpu family']}, model {known['model']})"
    return found
