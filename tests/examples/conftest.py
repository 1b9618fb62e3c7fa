"""Makes the scripts of examples/ importable."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

STUDIES = ("benchmarks", "debian_catalogues", "gap", "language_model", "libreoffice_help", "recipes", "warm_start")

for folder in (EXAMPLES, *(EXAMPLES / name for name in STUDIES)):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
