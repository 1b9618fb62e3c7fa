"""Repairs for numpy 2: removed names, and arithmetic that no longer widens integers."""

from __future__ import annotations

import functools
import sys
import types
from typing import Any

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder


def _percentile(values: Any, shares: Any, interpolation: Any = "linear") -> Any:
    """Return numpy's percentile, whose argument ``method`` was called ``interpolation``."""
    return np.percentile(values, shares, method=interpolation)


# modules of fairseq that use removed names, and the meaning of these
_OLD_NAMES: dict[str, dict[str, Any]] = {
    "fairseq.data.token_block_dataset": {"compat": types.SimpleNamespace(long=int)},
    "fairseq.data.language_pair_dataset": {"compat": types.SimpleNamespace(long=int)},
    "fairseq.data.data_utils": {"int": int},
    "fairseq.modules.dynamic_crf_layer": {"float": float},
}

# and of functions of which it has renamed an argument
_CHANGED = {"fairseq.data.data_utils": {"percentile": _percentile}}


class _Numpy(types.ModuleType):
    """numpy with its former names."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def give_back_old_names_of_numpy() -> None:
    """Let four modules of fairseq find names that numpy has removed: ``np.compat``, ``np.int``, ``np.float``, and an
    argument of ``np.percentile``.

    Without them, language models can neither generate nor cut text into blocks (``--sample-break-mode none``).
    Validation of a language pair with ``num_tokens_vec``, ``--num-batch-buckets``, audio masks and the CRF of
    non-autoregressive models fail, too. The names are added to these modules' own ``np``; numpy stays as it is.
    """
    for module_name, names in _OLD_NAMES.items():
        module: Any = sys.modules.get(module_name)
        if module is None or module.np is not np:
            continue
        missing = {name: value for name, value in names.items() if not hasattr(np, name)}
        changed = _CHANGED.get(module_name, {})
        if missing or changed:
            module.np = _Numpy("numpy")
            vars(module.np).update(missing | changed)


def merge_large_binaries() -> None:
    """Let ``fairseq-preprocess --workers N`` merge parts into a file of more than 2 GiB.

    The positions of sentences are summed from their sizes, which are numpy's 32-bit integers if read from a part. Up
    to numpy 1, their products with Python integers had 64 bits. Since numpy 2 they have 32, so every position past
    2 GiB is wrong.
    """
    original = MMapIndexedDatasetBuilder.merge_file_
    if hasattr(original, "_mos_fairseq_original"):
        return

    @functools.wraps(original)
    def merge_file_(self: MMapIndexedDatasetBuilder, another_file: str) -> None:
        known = len(self._sizes)
        original(self, another_file)
        self._sizes[known:] = [int(size) for size in self._sizes[known:]]

    merge_file_._mos_fairseq_original = original  # type: ignore[attr-defined]
    MMapIndexedDatasetBuilder.merge_file_ = merge_file_
