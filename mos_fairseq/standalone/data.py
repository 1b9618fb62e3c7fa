"""Identify the data of a training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from fairseq import utils

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.data import first_folder, subset_files
from mos_fairseq.standalone.configuration import plain


def check_one_folder(cfg: Mapping[str, Any], data: str) -> None:
    """Raise InputError if a supernet of ``cfg`` was trained with ``--shard-data`` and ``data`` lists several folders:
    one process would train on one of them in an epoch."""
    folders = utils.split_paths(data)
    if plain(cfg.get("task")).get("shard_data") and len(folders) > 1:
        raise InputError(
            f"data is {data}, and the supernet was trained with --shard-data: one process cannot train on "
            f"{len(folders)} folders at once; allowed is one folder with all of it"
        )


def data_digest(data: str, subset: str = "train") -> str:
    """Return a digest of the dictionaries and the whole training set, in all folders of ``data``, independent of paths.

    A gigabyte takes a second or two; the training takes hours.

    Raises:
        InputError: a folder is missing or cannot be read.
    """
    digest = hashlib.sha256()
    folders = utils.split_paths(data)
    dictionaries = [name for name in sorted(os.listdir(first_folder(data))) if name.startswith("dict.")]
    for folder in folders:
        try:
            names = [*(dictionaries if folder == folders[0] else ()), *subset_files(folder, subset)]
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    digest.update(f"{name} ".encode() + hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InputError(f"data is {folder}: it cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()[:16]
