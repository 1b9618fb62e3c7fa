"""Folders of sentence pairs, as fairseq-preprocess makes them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from fairseq import utils

from mos_fairseq.errors import InputError


def first_folder(data: str) -> str:
    """The first of the folders in ``data``, which colons separate: fairseq reads dictionaries and test sets there.

    Raises:
        InputError: there is no such folder.
    """
    folder = next(iter(utils.split_paths(data)), "")
    if not os.path.isdir(folder):
        raise InputError(f"data is {folder}: no such folder (fairseq-preprocess makes them)")
    return folder


def subset_files(folder: str, subset: str) -> Iterator[str]:
    """Names of the files that hold ``subset``, sorted; fairseq also trains on ``train1``, ``train2``…"""
    of_subset = re.compile(rf"{re.escape(subset)}\d*\.").match
    yield from (name for name in sorted(os.listdir(folder)) if of_subset(name))


def dataset_impl(data: str, subset: str) -> str | None:
    """fairseq's ``--dataset-impl`` for ``subset``: ``raw`` where there is only its text, None where fairseq finds out.

    Raises:
        InputError: there is no such folder.
    """
    names = list(subset_files(first_folder(data), subset))
    return "raw" if names and not any(name.endswith(".idx") for name in names) else None
