"""What Linux says of this machine's first processor: which library multiplies faster depends on it."""

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


def is_intel() -> bool:
    """Whether it is one of Intel's."""
    return fields().get("vendor_id") == "GenuineIntel"


def is_zen5() -> bool:
    """Whether it is one of AMD's that do 512 bits at once (Zen 5, family 26, or later), which MKL does not use."""
    family = fields().get("cpu family", "")
    return fields().get("vendor_id") == "AuthenticAMD" and family.isdecimal() and int(family) >= 26


def name() -> str:
    """Its name, with family and model where given: processors of several generations call themselves AMD EPYC."""
    known = fields()
    found = known.get("model name") or known.get("Model") or platform.processor() or platform.machine()
    if {"cpu family", "model"} <= known.keys():
        found += f" (family {known['cpu family']}, model {known['model']})"
    return found
