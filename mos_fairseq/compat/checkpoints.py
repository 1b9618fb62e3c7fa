"""Read checkpoints with torch's safe reader, and say why one cannot be read."""

from __future__ import annotations

import argparse
import collections
import functools
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any, SupportsIndex

import numpy as np
import omegaconf
import torch
from fairseq import checkpoint_utils
from fairseq.data.dictionary import Dictionary
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import meters
from omegaconf import base, nodes

from ..errors import InputError

FULL_UNPICKLING = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_NOT_NUMBERS = "numpy data other than plain numbers"


class _PickledDtype:
    """Replaces ``numpy.dtype`` while a checkpoint is read: a plain number type and its byte order.

    The real dtype's ``__setstate__`` trusts fields, sizes and flags, so a crafted file could lay object pointers over
    raw bytes.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufc]\d{1,2}", code):
            raise pickle.UnpicklingError(_NOT_NUMBERS)
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order from the pickled state; refuse sub-arrays and fields."""
        if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError(_NOT_NUMBERS)
        self.dtype = self.dtype.newbyteorder(state[1])


class _PickledArray(np.ndarray):
    """Replaces ``numpy.ndarray`` while a checkpoint is read: an array of plain numbers."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Check the pickled type before numpy sees it; numpy itself checks the size."""
        version, shape, dtype, fortran_order, data = state
        super().__setstate__((version, shape, _plain_dtype(dtype), fortran_order, bytes(data)))

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickle as numpy's own array: a resumed run saves again what it read, for example BLEU counts."""
        return np.asarray(self).__reduce_ex__(protocol)


def _plain_dtype(dtype: Any) -> np.dtype:
    dtype = dtype.dtype if isinstance(dtype, _PickledDtype) else dtype
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biufc":
        raise pickle.UnpicklingError(_NOT_NUMBERS)
    return dtype


def _rebuild_array(subtype: type, shape: tuple[int, ...], code: bytes) -> _PickledArray:
    return _PickledArray((0,), np.int8)


def _rebuild_scalar(dtype: Any, data: bytes) -> np.generic:
    return np.frombuffer(bytes(data), dtype=_plain_dtype(dtype), count=1)[0]


def _stock_checkpoint_globals() -> list[Any]:
    """List the types in fairseq's own checkpoints besides tensors and plain containers.

    The unpickler calls these with any arguments from the file. So only types belong here whose construction stores its
    arguments and does nothing more: it never looks up a name, imports, evaluates, opens a file or calls a function.
    """
    plain = [dict, list, tuple, int, float, bool, str, collections.defaultdict, argparse.Namespace]
    config = [omegaconf.DictConfig, omegaconf.ListConfig, base.ContainerMetadata, base.Metadata]
    config += [nodes.AnyNode, nodes.BooleanNode, nodes.FloatNode, nodes.IntegerNode, nodes.StringNode]
    meter_types = [meters.AverageMeter, meters.SumMeter, meters.TimeMeter, meters.StopwatchMeter]
    # rank 0 sends this to the other ranks when a data-parallel run resumes
    messages = [distributed_utils._TensorPlaceholder]

    allowed: list[Any] = [*plain, *config, *meter_types, *messages, Dictionary]
    # omegaconf saves the types of its containers; as annotations these are inert
    allowed += [(Any, "typing.Any"), (dict, "typing.Dict"), (list, "typing.List")]
    # fairseq before 0.9 pickled its meters, under the module's older name
    allowed += [(meter, f"fairseq.meters.{meter.__name__}") for meter in meter_types]
    allowed += [(_PickledDtype, "numpy.dtype"), (_PickledArray, "numpy.ndarray")]
    for multiarray in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1.x, numpy 2.x
        allowed += [(_rebuild_scalar, f"{multiarray}.scalar"), (_rebuild_array, f"{multiarray}._reconstruct")]
    return allowed


def allow_checkpoint_globals() -> None:
    """Let torch >= 2.6 read fairseq's checkpoints without running code from the file.

    Since 2.6 ``torch.load`` refuses every type that is not allow-listed, and each fairseq checkpoint holds some
    (``argparse.Namespace``, numpy scalars, omegaconf nodes). An allow-list keeps the safe reader; without that reader,
    a downloaded checkpoint could run any program.

    This covers reading only. fairseq then builds a model from the content; :mod:`.literals` keeps that from running
    code.
    """
    known = torch.serialization.get_safe_globals()
    missing = [entry for entry in _stock_checkpoint_globals() if entry not in known]
    torch.serialization.add_safe_globals(missing)


class MissingCheckpointError(InputError, OSError):
    """No such file. Also of the type that fairseq raises, for programs that catch that."""


class UnreadableCheckpointError(InputError, pickle.UnpicklingError, RuntimeError, EOFError):
    """The file cannot be read. Also of the types that torch raises, for programs that catch those."""


def explain_unreadable_checkpoints() -> None:
    """Report in one line which checkpoint cannot be read, and why.

    torch's message is several lines long and does not name the file. Callers reach the two readers as
    attributes of ``fairseq.checkpoint_utils``, so replacing them there is enough.
    """
    for name in ("load_checkpoint_to_cpu", "load_ema_from_checkpoint"):
        reader = getattr(checkpoint_utils, name, None)
        if reader is not None and not hasattr(reader, "_mos_fairseq_original"):
            setattr(checkpoint_utils, name, _explained(reader))
    loader = checkpoint_utils.load_model_ensemble_and_task
    if not hasattr(loader, "_mos_fairseq_original"):
        checkpoint_utils.load_model_ensemble_and_task = _explained_absence(loader)


def _explained_absence(loader: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(loader)
    def load(*args: Any, **kwargs: Any) -> Any:
        try:
            return loader(*args, **kwargs)
        except OSError as error:
            missing = "Model file not found: "
            if not str(error).startswith(missing):
                raise
            path = str(error).removeprefix(missing)
            raise MissingCheckpointError(f"checkpoint {path}: no such file") from error

    load._mos_fairseq_original = loader  # type: ignore[attr-defined]
    return load


def _explained(reader: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(reader)
    def read(path: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return reader(path, *args, **kwargs)
        except (InputError, MemoryError):
            raise
        except Exception as error:
            if not _raised_by_torch_load(error):
                raise
            raise UnreadableCheckpointError(_why_unreadable(str(path), error)) from error

    read._mos_fairseq_original = reader  # type: ignore[attr-defined]
    return read


def _raised_by_torch_load(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == torch.serialization.__file__:
            return True
        trace = trace.tb_next
    return False


def _why_unreadable(path: str, error: Exception) -> str:
    text = str(error)
    blocked = re.search(r"GLOBAL (\S+) (?:was not an allowed global|whose module)", text)
    complete = zipfile.is_zipfile(path)
    not_numbers = _NOT_NUMBERS in text
    refused = isinstance(error, pickle.UnpicklingError) and (blocked is not None or not_numbers or complete)
    if _has_known_form(path, complete) and (refused or "Cannot use ``weights_only=True``" in text):
        if blocked is not None:  # torch omits "builtins." from the name
            name = blocked[1] if "." in blocked[1] else f"builtins.{blocked[1]}"
            reason = f"it holds {name}, a type that fairseq's own checkpoints do not hold"
        elif not_numbers:
            reason = f"it holds {_NOT_NUMBERS}"
        else:
            reason = "torch's safe reader does not support its format"
        return (
            f"checkpoint {path}: {reason}; {FULL_UNPICKLING}=1 in the environment reads it anyway, but "
            "then the file can run any program: use it only for files that you trust"
        )
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    what = f"truncated, corrupt or not a checkpoint ({size} bytes)" if size else "empty"
    return f"checkpoint {path}: the file is {what}"


def _has_known_form(path: str, complete_zip: bool) -> bool:
    """Return whether the file is a complete zip, a pickle or a tar: the three formats that torch has written."""
    if complete_zip or not os.path.isfile(path):
        return complete_zip
    with open(path, "rb") as file:
        return file.read(1) == b"\x80" or tarfile.is_tarfile(path)
