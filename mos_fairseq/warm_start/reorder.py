"""Sort a supernet's neurons and heads by importance in the middle of its training, as BootstrapNAS does before a stage
of narrower subnets (arXiv 2112.10878)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mos_fairseq.errors import InputError
from mos_fairseq.models import Supernet
from mos_fairseq.modules import ElasticLinear, ElasticTransformerLayer, FactoredLinear
from mos_fairseq.modules.factored_linear import reader
from mos_fairseq.warm_start.importance import Orders

Moves = Mapping[str, tuple[int, Tensor]]
"""Parameter name -> (dimension, old index at each new place of it)."""


def moves_of(model: Supernet, orders: Orders) -> Moves:
    """Return the moves that sort the units of ``model`` by ``orders``. Its largest subnet is active. Experts and
    routers' outputs move alike; channels stay."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[int, Tensor]] = {}
    for stack in model.stacks():
        for index, layer in enumerate(stack.layers):
            for linear, dim, order in _linears(layer, (stack.stack.name, index), orders):
                found[names[linear.weight]] = dim, order
                if linear.bias is not None and dim == 2:  # of rows
                    found[names[linear.bias]] = dim, order
                if isinstance(linear, ElasticLinear) and linear.low_rank is not None:
                    factor = linear.low_rank.up if dim == 2 else linear.low_rank.down
                    found[names[factor]] = dim, order
    return found


def _linears(
    layer: ElasticTransformerLayer, place: tuple[str, int], orders: Orders
) -> Iterator[tuple[ElasticLinear, int, Tensor]]:
    """(linear, 2 for its rows or 3 for its columns, order)."""
    neurons = orders.ffn.get(place)
    if neurons is not None:
        yield from _rows(layer, "fc1.up" if isinstance(layer.fc1, FactoredLinear) else "fc1", neurons)
        yield reader(layer.fc2), 3, neurons
    for (*of, name), heads in orders.heads.items():
        if tuple(of) != place:
            continue
        attention = getattr(layer, name)
        inner = torch.arange(attention.out_proj.max_in_features).view(attention.num_heads, -1)[heads].flatten()
        for projection in ("q_proj", "kv_proj") if attention.is_cross_attention else ("qkv_proj",):
            yield from _rows(layer, f"{name}.{projection}", inner)
        yield attention.out_proj, 3, inner


def _rows(layer: ElasticTransformerLayer, name: str, order: Tensor) -> Iterator[tuple[ElasticLinear, int, Tensor]]:
    yield layer.get_submodule(name), 2, order
    if isinstance(layer.router, nn.ModuleDict) and name.replace(".", "_") in layer.router:  # one output for each row
        yield layer.router[name.replace(".", "_")].head, 2, order


def reordered(state: dict[str, Any], model: Supernet, moves: Moves) -> dict[str, Any]:
    """Return the checkpoint ``state`` of ``model`` with weights, their averages and the optimizer's state moved. The
    rest is unchanged, so that training can resume. The optimizer has a state for each parameter of ``model`` that
    requires a gradient.

    Raises:
        InputError: the optimizer keeps something that has no place for each unit.
    """
    changed = state | {"model": _moved_weights(state["model"], moves)}
    extra = dict(state.get("extra_state") or {})
    for name in ("ema", "ema_fp32_params"):
        if extra.get(name):
            extra[name] = _moved_weights(extra[name], moves)
    if extra:
        changed["extra_state"] = extra
    if state.get("last_optimizer_state"):
        changed["last_optimizer_state"] = _moved_moments(state["last_optimizer_state"], model, moves)
    return changed


def _moved(tensor: Tensor, move: tuple[int, Tensor]) -> Tensor:
    dim, order = move
    return tensor.index_select(dim, order)


def _moved_weights(weights: Mapping[str, Tensor], moves: Moves) -> dict[str, Tensor]:
    return {name: _moved(value, moves[name]) if name in moves else value for name, value in weights.items()}


def _moved_moments(optimizer: dict[str, Any], model: Supernet, moves: Moves) -> dict[str, Any]:
    """Move the optimizer's states, which are numbered like the parameters that require a gradient."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    indices = [index for group in optimizer["param_groups"] for index in group["params"]]
    if len(indices) != len(trained):
        raise InputError(
            f"the checkpoint's optimizer keeps {len(indices)} tensors, the model has {len(trained)}: allowed is one "
            "for each (with --fp16, --fp16-no-flatten-grads)"
        )
    state = dict(optimizer["state"])
    for index, (name, parameter) in zip(indices, trained, strict=True):
        if name in moves and index in state:
            state[index] = {key: _moved_moment(key, kept, parameter, moves[name]) for key, kept in state[index].items()}
    return optimizer | {"state": state}


def _moved_moment(key: str, kept: Any, parameter: Tensor, move: tuple[int, Tensor]) -> Any:
    if not isinstance(kept, Tensor) or kept.numel() == 1:  # of all units
        return kept
    if kept.shape == parameter.shape:
        return _moved(kept, move)
    if kept.shape[1 - parameter.dim() :].numel() == 1:  # of each expert
        return kept
    raise InputError(
        f"the checkpoint's optimizer keeps {key} of {list(kept.shape)} for weights of {list(parameter.shape)}: allowed "
        "is what is as large as the weights, as of adam, adam_fused, scaled_adam and sgd"
    )
