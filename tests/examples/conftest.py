"""Makes the scripts of examples/ importable."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# debian_catalogues comes last: `import extract` means the script of libreoffice_help
STUDIES = ("benchmarks", "bert_debian", "gap", "language_model", "libreoffice_help", "recipes", "warm_start")
STUDIES += ("debian_catalogues",)

for folder in (EXAMPLES, *(EXAMPLES / name for name in STUDIES)):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
