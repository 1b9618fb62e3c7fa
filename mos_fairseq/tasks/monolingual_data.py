"""Folders of monolingual text made by ``fairseq-preprocess --only-source``."""

from __future__ import annotations

import os

from fairseq import utils
from fairseq.file_io import PathManager

from mos_fairseq.errors import InputError

DICTIONARY = "dict.txt"


def check_monolingual(data: str | None) -> None:
    """Raise InputError if the first data folder, or its dictionary, is missing."""
    folder = next(iter(utils.split_paths(data or "")), "")
    if not PathManager.exists(folder):
        raise InputError(f"data is {folder or 'not given'}: no such folder (fairseq-preprocess --only-source)")
    if not PathManager.exists(os.path.join(folder, DICTIONARY)):
        raise InputError(f"data is {folder}: it lacks {DICTIONARY}, which fairseq-preprocess --only-source makes")
