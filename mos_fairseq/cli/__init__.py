"""Console scripts, named like fairseq's: only wiring."""

from __future__ import annotations

import logging


def quiet() -> None:
    """Log warnings only: fairseq opens the root logger for everything, and these commands print for themselves."""
    logging.getLogger().setLevel(logging.WARNING)
