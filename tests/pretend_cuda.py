"""A simulated GPU for machines without one: tensors report the device ``cuda`` and compute on the CPU.

torch's own fake tensors have no values, and their backward pass ends the process in a torch without CUDA. So these are
wrapped real tensors. As on a GPU, an operation on tensors of two devices raises an error, a tensor made without a
device is on the CPU, and a tensor's device is ``cuda:0``. Beyond a real GPU, every host wait for the device is
recorded, with the line that caused it.

It does not simulate kernels, rounding, streams, memory, and errors that only the driver raises.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda:0")
CPU = torch.device("cpu")
aten = torch.ops.aten

# the host reads a value, or asks how many there are
_READS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.nonzero.default,
    aten.nonzero_numpy.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
}
# a mask among the indices becomes numbers first
_INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
_COPIES = {aten._to_copy.default, aten.copy_.default}
_SAME_DEVICE = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"


class OnCuda(torch.Tensor):
    """A tensor on the device; ``values`` is the real tensor. In C++ it is on ``meta``, with CUDA's dispatch keys, so
    that autograd and autocast treat it as a CUDA tensor."""

    values: torch.Tensor
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> OnCuda:
        if torch.is_inference_mode_enabled() and not values.is_inference():
            with torch.inference_mode(False):  # a view of an ordinary tensor is one, in inference mode too
                return cls.__new__(cls, values)
        with torch._C._DisableTorchDispatch():
            outside = torch.empty_strided(values.size(), values.stride(), dtype=values.dtype, device="meta")
            tensor = torch.Tensor._make_subclass(cls, outside, device_for_backend_keys=CUDA)
        tensor.values = values
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        # reached in the backward pass of another thread only: everywhere else the mode comes first
        return _run(func, args, kwargs or {}, None)

    @property
    def data(self) -> OnCuda:
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, other: OnCuda) -> None:
        torch.Tensor.data.__set__(self, other)
        self.values = other.values

    def data_ptr(self) -> int:
        return self.values.data_ptr()

    def new(self, *sizes) -> OnCuda:
        return self.new_empty(sizes)

    def __getitem__(self, index: Any) -> torch.Tensor:
        return torch.Tensor.__getitem__(self, _with_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        torch.Tensor.__setitem__(self, _with_tensors(index), value)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def __deepcopy__(self, memo: dict) -> OnCuda:
        copy = OnCuda(self.values.clone()).requires_grad_(self.requires_grad)
        copy.__dict__.update({key: value for key, value in self.__dict__.items() if key != "values"})
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol):
        raise TypeError("a tensor on cuda:0 is written to a file: it cannot be read without a GPU")

    def __format__(self, how: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), how)

    def __repr__(self, **kwargs) -> str:
        return f"OnCuda({self.values!r})"


def _with_tensors(index: Any) -> Any:
    """Return an index with tensors on the device in place of lists, which torch would turn into tensors on ``meta``."""
    if isinstance(index, tuple):
        return tuple(map(_with_tensors, index))
    return torch.tensor(index).to(CUDA) if isinstance(index, list) else index


def _is_cuda(device: Any) -> bool:
    """C++ that makes a tensor beside one of ours asks for ``meta``."""
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _inside(tree: Any) -> Any:
    kind = type(tree)
    if kind is OnCuda:
        return tree.values
    if kind is tuple or kind is list:
        return kind([_inside(value) for value in tree])
    return {key: _inside(value) for key, value in tree.items()} if kind is dict else tree


def _outside(tree: Any, known: list[OnCuda]) -> Any:
    """``tree`` with coats on; a tensor that is the inside of one of ``known``, written in place, stays that one."""
    if isinstance(tree, torch.Tensor):
        for tensor in known:
            if tensor.values is tree:
                return tensor
        return OnCuda(tree)
    return type(tree)([_outside(part, known) for part in tree]) if isinstance(tree, (list, tuple)) else tree


def _tensors(args: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for value in args:
        kind = type(value)
        if kind is OnCuda or isinstance(value, torch.Tensor):
            found.append(value)
        elif kind is list or kind is tuple:
            found += _tensors(value)
    return found


def _run(func: Any, args: tuple, kwargs: dict[str, Any], note: Callable[..., None] | None) -> Any:
    tensors = _tensors((*args, *kwargs.values()) if kwargs else args)
    ours = [tensor for tensor in tensors if type(tensor) is OnCuda]
    wanted = kwargs.get("device")
    if len(ours) != len(tensors) and any(tensor.is_meta for tensor in tensors):
        raise RuntimeError(f"{func} is called with a tensor that torch made on meta beside one of ours")
    if not ours and not _is_cuda(wanted):
        return func(*args, **kwargs)
    onto = _is_cuda(wanted) if wanted is not None else bool(ours)
    if func in _COPIES:
        if func is aten.copy_.default:
            onto = type(args[0]) is OnCuda
        apart = len(ours) != (len(tensors) if onto else 0)
        if apart and note is not None:
            waits = not (kwargs.get("non_blocking") or args[2:] == (True,))
            note("copy to the device" if onto else "copy to the host", waits)
    else:
        if ours and len(ours) != len(tensors):
            _check_devices(func, args, tensors)
        if note is not None and (func in _READS or (func in _INDEXED and _waits_for(args[1]))):
            note(str(func.overloadpacket))
    if wanted is not None:
        kwargs = kwargs | {"device": CPU}
    found = func(*_inside(args), **_inside(kwargs)) if kwargs else func(*_inside(args))
    if func is aten.copy_.default:
        return args[0]
    if _changes_size(func):  # the coat gets the new size, too
        func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.Meta), *args, **kwargs)
    if not onto:
        return found
    return _outside(found, ours)


@cache
def _changes_size(func: Any) -> bool:
    return torch.Tag.inplace_view in func.tags or func is aten.resize_.default


def _waits_for(indices: Any) -> bool:
    """Whether there is a mask among them, or one that has to be copied to the device."""
    some = [index for index in indices if index is not None]
    return any(index.dtype in (torch.bool, torch.uint8) or not isinstance(index, OnCuda) for index in some)


def _check_devices(func: Any, args: tuple, tensors: list[torch.Tensor]) -> None:
    """Of tensors on both devices, raise RuntimeError where CUDA would: single numbers on the CPU are welcome in
    operations on elements."""
    others = [tensor for tensor in tensors if not isinstance(tensor, OnCuda)]
    by_element = torch.Tag.pointwise in func.tags or func is aten.fill_.Tensor
    if func in _INDEXED:  # their indices may be on the CPU, and are copied
        others, by_element = [t for t in others if not any(t is index for index in args[1])], True
    if not (by_element and all(tensor.dim() == 0 for tensor in others)):
        raise RuntimeError(f"{_SAME_DEVICE} (when calling {func}, sizes {[tuple(t.shape) for t in tensors]})")


@dataclass(frozen=True)
class Wait:
    """A host wait for the device: its cause, and the innermost line of fairseq or this package."""

    what: str
    line: str

    def is_in(self, package: str) -> bool:
        return self.line.startswith(f"{package}/")


class Waits(list[Wait]):
    """Host waits; and ``copies`` between devices without a wait."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[Wait] = []


def _line() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        for package in ("mos_fairseq", "fairseq", "fairseq_cli"):
            if package in parts and "tests" not in parts:
                name = "/".join(parts[len(parts) - 1 - parts[::-1].index(package) :])
                return f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "?"


class _Mode(TorchDispatchMode):
    # with this key torch does not look for a driver where a device is named, and lets the mode see whatever is made
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __init__(self) -> None:
        super().__init__()
        self.waits = Waits()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # nothing is compiled here, and the check is slow
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.is_inference_mode_enabled():  # without autograd, operations that consist of others come whole
            with self:
                found = func.decompose(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        with torch._C.DisableTorchFunction():  # otherwise autocast looks at every question about a size
            return _run(func, args, kwargs or {}, self._note)

    def _note(self, what: str, waits: bool = True) -> None:
        (self.waits if waits else self.waits.copies).append(Wait(what, _line()))


_plain_to = torch.Tensor.to


def _to(tensor: torch.Tensor, *args, **kwargs) -> torch.Tensor:
    """Without a number, torch would ask the driver which device ``cuda`` is."""

    def numbered(value: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool)  # torch's default device of that number
        return CUDA if is_number or (isinstance(value, (str, torch.device)) and _is_cuda(value)) else value

    # of another tensor it would see meta
    like = [value for value in args if isinstance(value, torch.Tensor)]
    if like:
        args = (like[0].device, like[0].dtype, *args[1:])
    return _plain_to(tensor, *map(numbered, args), **{key: numbered(value) for key, value in kwargs.items()})


def _names(*names: str) -> set[Any]:
    """Functions of these names, wherever torch has them."""
    places = (torch, torch.Tensor, torch.nn.functional, torch._C._nn)
    return {getattr(place, name) for place in places for name in names if hasattr(place, name)}


# torch's CUDA lists, restricted to operations of Transformers and losses
_LOWER = _names("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm")
_LOWER |= _names("scaled_dot_product_attention")
_IN_FP32 = _names("exp", "expm1", "log", "log1p", "pow", "rsqrt", "reciprocal", "layer_norm", "norm", "nll_loss")
_INTO_FP32 = _names("softmax", "log_softmax", "cumsum", "prod", "sum")  # unless a type is given


class _Autocast(TorchFunctionMode):
    """torch.autocast("cuda"), which in C++ looks for tensors on CUDA, and finds ours on ``meta``."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_autocast_enabled("cuda") and func in _LOWER | _IN_FP32 | _INTO_FP32:
            if any(isinstance(tensor, OnCuda) for tensor in _tensors(args)):
                wanted = torch.get_autocast_dtype("cuda") if func in _LOWER else torch.float32
                if func not in _INTO_FP32 or kwargs.get("dtype") is None:
                    args = tuple(_cast(value, wanted) for value in args)
                    kwargs = {key: _cast(value, wanted) for key, value in kwargs.items()}
        return func(*args, **kwargs)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    floats = (torch.float16, torch.bfloat16, torch.float32)
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.dtype in floats else value


class _Event:
    """Of work that is done at once."""

    def __init__(self, *args, **kwargs) -> None:
        self._time = 0.0

    def record(self, *args) -> None:
        self._time = time.perf_counter()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        """Wait, on purpose."""

    def elapsed_time(self, later: _Event) -> float:
        return 1000 * (later._time - self._time)


@contextmanager
def pretend_cuda() -> Iterator[Waits]:
    """Within the context there is one GPU. Yields the growing list of host waits."""
    properties = SimpleNamespace(major=8, minor=0, total_memory=1 << 34, name="pretended GPU", multi_processor_count=1)
    nothing = lambda *args, **kwargs: None  # noqa: E731
    answers = {
        "is_available": lambda: True,
        "is_bf16_supported": lambda *args: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda *args: properties.name,
        "get_device_capability": lambda *args: (properties.major, properties.minor),
        "get_device_properties": lambda *args: properties,
        "max_memory_allocated": lambda *args: 0,
        "Event": _Event,
        "get_rng_state": lambda *args: torch.get_rng_state(),
    }
    silent = ("set_device", "empty_cache", "reset_peak_memory_stats", "manual_seed", "manual_seed_all", "set_rng_state")
    with ExitStack() as stack:
        for name, answer in (answers | dict.fromkeys(silent, nothing)).items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        stack.enter_context(patch.object(torch.Tensor, "pin_memory", lambda tensor, *args: tensor))
        stack.enter_context(patch.object(torch.Tensor, "to", _to))
        stack.enter_context(patch.object(torch.Tensor, "cuda", lambda tensor, *args, **kwargs: tensor.to(CUDA)))
        stack.enter_context(_switched(torch._C._only_lift_cpu_tensors, torch._C._set_only_lift_cpu_tensors, True))
        stack.enter_context(
            _switched(
                torch.__future__.get_swap_module_params_on_conversion,
                torch.__future__.set_swap_module_params_on_conversion,
                True,
            )
        )
        stack.enter_context(_Autocast())
        mode = stack.enter_context(_Mode())
        waits = mode.waits
        stack.enter_context(
            patch.object(torch.cuda, "synchronize", lambda *args: waits.append(Wait("synchronize", _line())))
        )
        yield waits


@contextmanager
def _switched(get: Callable[[], bool], set_: Callable[[bool], None], value: bool) -> Iterator[None]:
    before = get()
    set_(value)
    try:
        yield
    finally:
        set_(before)
