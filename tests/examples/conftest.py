"""Makes the scripts of examples/ importable."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# debian_catalogues comes last: `import extract` means the script of libreoffice_help
FOLDERS = [EXAMPLES / "tools"]
FOLDERS += [
    EXAMPLES / "studies" / name
    for name in ("benchmarks", "gap", "language_model", "sampling", "training", "warm_start")
]
FOLDERS += [EXAMPLES / "recipes" / name for name in ("bert_debian", "glue", "libreoffice_help", "debian_catalogues")]
for folder in FOLDERS:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
