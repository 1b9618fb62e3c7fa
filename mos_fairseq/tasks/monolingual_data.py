"""Folders of monolingual text made by ``fairseq-preprocess --only-source``."""

from __future__ import annotations

import os

from fairseq import utils
from fairseq.file_io import PathManager

from mos_fairseq.errors import InputError

DICTIONARY = "dict.txt"


def checked_folder(data: str | None, origin: str) -> str:
    """Return the first of the folders in ``data``. Raises InputError if one of them is missing; ``origin`` tells where
    they come from."""
    folders = utils.split_paths(data or "")
    for folder in folders:
        if not PathManager.exists(folder):
            which = f", of {data}" if len(folders) > 1 else ""
            raise InputError(f"data is {folder or 'not given'}{which}: no such folder ({origin})")
    return folders[0]


def check_monolingual(data: str | None) -> None:
    """Raise InputError if a data folder, or the first one's dictionary, is missing."""
    folder = checked_folder(data, "fairseq-preprocess --only-source")
    if not PathManager.exists(os.path.join(folder, DICTIONARY)):
        raise InputError(f"data is {folder}: it lacks {DICTIONARY}, which fairseq-preprocess --only-source makes")
