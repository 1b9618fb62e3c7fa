"""Folders made by fairseq-preprocess."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from fairseq import utils

from mos_fairseq.errors import InputError


def first_folder(data: str) -> str:
    """Return the first of the folders in ``data``, separated by colons: it holds dictionaries and test sets.

    Raises:
        InputError: there is no such folder.
    """
    folder = next(iter(utils.split_paths(data)), "")
    if not os.path.isdir(folder):
        raise InputError(f"data is {folder}: no such folder (fairseq-preprocess makes them)")
    return folder


def subset_files(folder: str, subset: str) -> Iterator[str]:
    """Yield the sorted names of the files of ``subset``; for ``train``, fairseq also uses ``train1``, ``train2``, …"""
    of_subset = re.compile(rf"{re.escape(subset)}\d*\.").match
    yield from (name for name in sorted(os.listdir(folder)) if of_subset(name))


def dataset_impl(data: str, subset: str) -> str | None:
    """Return fairseq's ``--dataset-impl`` for ``subset``: ``raw`` if only its text exists, None if fairseq detects it.

    Raises:
        InputError: there is no such folder.
    """
    names = list(subset_files(first_folder(data), subset))
    return "raw" if names and not any(name.endswith(".idx") for name in names) else None
