"""Versions of the packages that results depend on."""

from __future__ import annotations

import platform
from importlib import metadata

import mos_fairseq

_FAIRSEQ = ("ve-fairseq", "fairseq-fixed", "fairseq")  # whichever is installed


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of this package, fairseq's distribution and ``packages`` by name, if installed; nothing is
    imported."""
    found = {"mos-fairseq": mos_fairseq.__version__}
    for name in (*_FAIRSEQ, *packages):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def in_one_line() -> str:
    """For ``--version``."""
    known = versions_of("torch") | {"Python": platform.python_version()}
    return ", ".join(f"{name} {version}" for name, version in known.items())
