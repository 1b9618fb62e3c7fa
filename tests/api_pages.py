#!/usr/bin/env python3
"""Build pages of the package's API from its docstrings; a warning of pdoc's is an error.

python tests/api_pages.py build/api
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import pdoc

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported


def main(folder: Path) -> None:
    """Command line."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pdoc.pdoc("mos_fairseq", output_directory=folder)
    # others' modules warn, too, while they are imported
    ours = [warning for warning in found if "mos_fairseq" in str(warning.message) or "pdoc" in warning.filename]
    for warning in ours:
        print(f"{warning.filename}:{warning.lineno}: {warning.message}", file=sys.stderr)
    if ours:
        sys.exit(f"error: {len(ours)} warnings")
    print(f"{folder / 'mos_fairseq.html'}: {len(list(folder.rglob('*.html')))} pages")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
