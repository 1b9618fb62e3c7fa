"""Copy all active parts of a supernet into the dense modules of its static twin."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain

import torch
from torch import Tensor, nn

from mos_fairseq.modules import (
    ElasticEmbedding,
    ElasticLayerMaps,
    ElasticLayerNorm,
    ElasticLinear,
    FactoredLinear,
    LowRankExperts,
    MaskedLanguageHead,
    PositionalEmbedding,
)
from mos_fairseq.modules.factored_linear import product


@torch.no_grad()
def copy_active(side: nn.Module, twin: nn.Module) -> None:
    """Copy one side (encoder or decoder) of a supernet in eval mode into the twin's, module by module, by name.

    Raises:
        TypeError: an active module of the supernet has an unsupported type, or has no counterpart.
        RuntimeError: sizes differ, or no module writes a parameter or buffer of the twin.
    """
    for layer in side.layers[: side.num_active_layers]:
        layer.materialize()
    left_out = {id(module) for layer in side.layers[side.num_active_layers :] for module in layer.modules()}
    left_out |= {id(module) for layer in side.layers if layer.router is not None for module in layer.router.modules()}
    copy_modules(side, twin, left_out)


@torch.no_grad()
def copy_modules(origin: nn.Module, twin: nn.Module, left_out: Collection[int] = ()) -> None:
    """Copy the active parts of ``origin`` except the modules with ids in ``left_out``; see :func:`copy_active`."""
    left_out = set(left_out)
    copies, written = dict(twin.named_modules()), set()
    for name, module in origin.named_modules():
        if id(module) in left_out:
            continue
        if isinstance(module, ElasticLayerMaps):
            left_out |= {id(part) for part in module.modules()}  # which have no counterparts one by one
        if isinstance(module, FactoredLinear):
            if not isinstance(copies.get(name), FactoredLinear):  # a rank that does not pay
                left_out |= {id(part) for part in module.modules()}
                written |= {id(tensor) for tensor in _copy(name, module, copies.get(name))}
            continue
        if isinstance(module, LowRankExperts):
            continue  # merged into the linear that has them
        if isinstance(module, (PositionalEmbedding, ElasticLayerMaps)) or _own_tensors(module):
            written |= {id(tensor) for tensor in _copy(name, module, copies.get(name))}
    for name, tensor in (*twin.named_parameters(), *twin.named_buffers()):
        if id(tensor) not in written:
            raise RuntimeError(f"{name} of the static twin {tuple(tensor.shape)} is written by nothing in the supernet")


def _own_tensors(module: nn.Module) -> list[Tensor]:
    return [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]


def _copy(name: str, module: nn.Module, twin: nn.Module | None) -> list[Tensor]:
    """Copy one module's own tensors; returns the written tensors."""
    pairs: Iterable[tuple[Tensor | None, Tensor | None]]
    if twin is None:
        raise TypeError(f"{name} of the supernet, a {type(module).__name__}, has no counterpart in the static twin")
    if isinstance(module, ElasticLinear):
        pairs = zip((twin.weight, twin.bias), module._materialized or module.merge(), strict=True)
    elif isinstance(module, FactoredLinear):
        (up, bias), (down, _) = (factor._materialized or factor.merge() for factor in (module.up, module.down))
        pairs = [(twin.weight, product(up, down)), (twin.bias, bias)]
    elif isinstance(module, ElasticLayerNorm):
        pairs = zip((twin.weight, twin.bias), module.merge(), strict=True)
    elif isinstance(module, ElasticEmbedding):
        pairs = [(twin.weight, module.weight[:, : twin.embedding_dim])]
    elif isinstance(module, ElasticLayerMaps):
        dense = [(linear.weight, linear.bias) for linear in twin if isinstance(linear, nn.Linear)]
        pairs = zip(chain(*dense), chain(*module.merged()), strict=True)
    elif isinstance(module, MaskedLanguageHead):
        pairs = [(twin.bias, module.bias)]
    elif isinstance(module, PositionalEmbedding):
        if module.weight is None and twin.embedding_dim != module.embedding_dim:
            widths = f"{twin.embedding_dim}, the supernet's of {module.embedding_dim}"
            raise RuntimeError(f"{name} of the static twin is cut from a table of width {widths}")
        pairs = [(twin.weight, None if module.weight is None else module.weight[:, : twin.embedding_dim])]
    else:
        raise TypeError(f"{name} of the supernet is a {type(module).__name__}: how to copy it is not known")
    pairs = [(target, source) for target, source in pairs if target is not None or source is not None]
    for target, source in pairs:
        if target is None or source is None or target.shape != source.shape:
            shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (target, source)]
            raise RuntimeError(f"{name} of the static twin holds {shapes[0]}, the supernet's {shapes[1]}")
        target.copy_(source)
    return [target for target, _ in pairs]
