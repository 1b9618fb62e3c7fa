"""Which feed-forward neurons, heads and embedding channels matter most, so that prefix slices keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.models.transformer import TransformerModel
from torch import Tensor, nn

from mos_fairseq.errors import InputError
from mos_fairseq.masked import predicted_tokens, summed_loss
from mos_fairseq.models import RobertaSubnetModel, StaticTwin
from mos_fairseq.modules.factored_linear import dense, reader, writer
from mos_fairseq.warm_start.family import FAMILY, SIDES

Score = Callable[[Tensor, Tensor, int], Tensor]
"""(incoming [units, …], outgoing weight, how many units its columns are of) -> [units]."""


@dataclass(frozen=True)
class Orders:
    """Permutations, most important first: old index at each new place. What is not in them stays in place.

    ``ffn``: by (side, layer); ``heads``: by (side, layer, name of the attention); ``channels``: by side.
    """

    ffn: Mapping[tuple[str, int], Tensor] = field(default_factory=dict)
    heads: Mapping[tuple[str, int, str], Tensor] = field(default_factory=dict)
    channels: Mapping[str, Tensor] = field(default_factory=dict)


def importance_orders(
    model: TransformerModel,
    batches: Sequence[dict[str, Any]] | None = None,
    *,
    heads: bool = True,
    channels: bool = True,
) -> Orders:
    """Order a stock model's neurons, heads and channels by importance.

    With ``batches`` (fairseq's mini-batches), importance is the first-order estimate of how much the loss changes when
    a unit is taken away, summed over batches: |sum of w * dL/dw| over the weights that carry its output (Molchanov et
    al., arXiv 1906.10771; for heads Michel et al., arXiv 1905.10650): a neuron's column of fc2, a head's columns of
    the output projection, a channel's scale and shift in every layer norm and its column of the embeddings. Without,
    it is the size of weights: the product of the norms of a neuron's (a head's) incoming and outgoing weights, and
    for a channel the sum of the norms of the columns that read it.

    Args:
        heads, channels: whether to order them too.
    """
    found: dict[Any, Tensor] = {}
    if batches is None:
        _add(found, _units(model, _by_size))
        channel_scores = {side: _channel_sizes(model, side) for side in SIDES}
    else:
        channel_scores = {side: torch.zeros(getattr(model, side).embed_tokens.embedding_dim) for side in SIDES}
        for batch in batches:
            _backward(model, batch)
            _add(found, _units(model, _by_gradient))
            for side in SIDES:
                channel_scores[side] += _channel_gradients(model, side)
        model.zero_grad(set_to_none=True)
    return _sorted(found, heads, _channel_orders(model, channel_scores) if channels else {})


def masked_orders(
    model: RobertaSubnetModel,
    batches: Sequence[dict[str, Any]] | None = None,
    *,
    heads: bool = True,
    channels: bool = True,
) -> Orders:
    """Order a masked language model's neurons, heads and channels by importance, as :func:`importance_orders` does; the
    loss is that of masked words.

    Args:
        heads, channels: whether to order them too.
    """
    encoder, name = model.encoder, model.encoder.stack.name
    found: dict[Any, Tensor] = {}
    if batches is None:
        _add(found, _twin_units(model, _by_size))
        channel_scores = _masked_channel_sizes(model)
    else:
        channel_scores = torch.zeros(encoder.embed_dim)
        for batch in batches:
            if _twin_backward(model, batch, encoder.dictionary.pad()):
                _add(found, _twin_units(model, _by_gradient))
                channel_scores += _channel_gradients(model, name)
        model.zero_grad(set_to_none=True)
        _check_any(found)
    order = torch.argsort(channel_scores, descending=True, stable=True)
    return _sorted(found, heads, {name: order} if channels else {})


def supernet_orders(twin: StaticTwin, batches: Sequence[dict[str, Any]] | None = None, *, heads: bool = True) -> Orders:
    """Order a supernet's neurons and heads by their importance in its largest subnet, of any family, as
    :func:`importance_orders` does.

    Args:
        twin: the static twin of that subnet.
        heads: whether to order them too.
    """
    found: dict[Any, Tensor] = {}
    if batches is None:
        _add(found, _twin_units(twin, _by_size))
    else:
        padding = getattr(twin, twin.family.output).dictionary.pad()
        for batch in batches:
            if _twin_backward(twin, batch, padding):
                _add(found, _twin_units(twin, _by_gradient))
        _check_any(found)
        twin.zero_grad(set_to_none=True)
    return _sorted(found, heads)


def _sorted(found: Mapping[Any, Tensor], heads: bool, channels: Mapping[str, Tensor] | None = None) -> Orders:
    """Sort the units of ``found``, by (side, layer) and (side, layer, name of the attention), by their scores."""
    order = {key: torch.argsort(score, descending=True, stable=True) for key, score in found.items()}
    return Orders(
        ffn={key: value for key, value in order.items() if len(key) == 2},
        heads={key: value for key, value in order.items() if len(key) == 3} if heads else {},
        channels=channels or {},
    )


def _twin_backward(twin: StaticTwin, batch: dict[str, Any], padding: int) -> bool:
    """Compute gradients of the mean loss of a predicted word. Return false if no word is predicted."""
    twin.zero_grad(set_to_none=True)
    count = predicted_tokens(twin, batch, padding)
    if count:
        (summed_loss(twin, batch, padding) / count).backward()
    return bool(count)


def _check_any(found: Mapping[Any, Tensor]) -> None:
    if not found:
        raise InputError("no token of the chosen examples is masked")


def _twin_units(twin: StaticTwin, score: Score) -> dict[Any, Tensor]:
    """As :func:`_units`."""
    found: dict[Any, Tensor] = {}
    for stack in twin.family.stacks:
        for index, layer in enumerate(getattr(twin, stack.name).layers):
            if score is _by_size:  # of factors, their product's
                incoming, outgoing = dense(layer.fc1)[0], dense(layer.fc2)[0]
            else:
                incoming, outgoing = writer(layer.fc1).weight, reader(layer.fc2).weight
            found[stack.name, index] = score(incoming, outgoing, len(incoming))
            for block in stack.attentions:
                attention = getattr(layer, block.name)
                fused, parts = (attention.kv_proj, 2) if attention.is_cross_attention else (attention.qkv_proj, 3)
                values, outgoing = fused.weight.chunk(parts)[-1], attention.out_proj.weight
                found[stack.name, index, block.name] = score(values, outgoing, attention.num_heads)
    return found


@torch.no_grad()
def _masked_channel_sizes(model: RobertaSubnetModel) -> Tensor:
    """Norms of the columns that read each channel."""
    readers = [model.encoder.lm_head.dense.weight]
    for layer in model.encoder.layers:
        readers.append(layer.fc1.weight)
        readers += [getattr(layer, block.name).qkv_proj.weight for block in model.encoder.stack.attentions]
    return torch.stack([weight.norm(dim=0) for weight in readers]).sum(0)


def _add(found: dict[Any, Tensor], scores: Mapping[Any, Tensor]) -> None:
    for key, score in scores.items():
        found[key] = found.get(key, 0) + score


def _units(model: TransformerModel, score: Score) -> dict[Any, Tensor]:
    """Scores of all neurons and heads."""
    found: dict[Any, Tensor] = {}
    for stack in FAMILY.stacks:
        for index, layer in enumerate(getattr(model, stack.name).layers):
            found[stack.name, index] = score(layer.fc1.weight, layer.fc2.weight, layer.fc1.out_features)
            for block in stack.attentions:
                attention = getattr(layer, block.name)
                incoming, outgoing = attention.v_proj.weight, attention.out_proj.weight
                found[stack.name, index, block.name] = score(incoming, outgoing, attention.num_heads)
    return found


@torch.no_grad()
def _by_size(incoming: Tensor, outgoing: Tensor, units: int) -> Tensor:
    return incoming.unflatten(0, (units, -1)).flatten(1).norm(dim=1) * _columns(outgoing, units).norm(dim=1)


@torch.no_grad()
def _by_gradient(incoming: Tensor, outgoing: Tensor, units: int) -> Tensor:
    if outgoing.grad is None:
        raise ValueError("weights without a gradient have no importance by gradients")
    return _columns(outgoing * outgoing.grad, units).sum(1).abs()


def _columns(weight: Tensor, units: int) -> Tensor:
    """[d, units * width] -> [units, width * d]."""
    return weight.T.unflatten(0, (units, -1)).flatten(1)


def _backward(model: TransformerModel, batch: dict[str, Any]) -> None:
    """Gradients of the mean cross-entropy per token, fresh."""
    model.zero_grad(set_to_none=True)
    logits, target = model(**batch["net_input"])[0], batch["target"]
    padding = model.decoder.padding_idx
    F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), ignore_index=padding).backward()


@torch.no_grad()
def _channel_sizes(model: TransformerModel, side: str) -> Tensor:
    """Norms of the columns that read each of the side's channels."""
    readers: list[Tensor] = []
    for stack in FAMILY.stacks:
        for layer in getattr(model, stack.name).layers:
            if stack.name == side:
                readers.append(layer.fc1.weight)
            for block in stack.attentions:
                attention = getattr(layer, block.name)
                if stack.name == side:
                    readers.append(attention.q_proj.weight)
                if (block.reads or stack.name) == side:
                    readers += [attention.k_proj.weight, attention.v_proj.weight]
    if side == FAMILY.output:
        readers.append(getattr(model, side).output_projection.weight)
    return torch.stack([weight.norm(dim=0) for weight in readers]).sum(0)


@torch.no_grad()
def _channel_gradients(model: nn.Module, side: str) -> Tensor:
    stack = getattr(model, side)
    terms = []
    for module in stack.modules():
        if isinstance(module, nn.LayerNorm):
            terms.append(module.weight * module.weight.grad + module.bias * module.bias.grad)
    terms.append((stack.embed_tokens.weight * stack.embed_tokens.weight.grad).sum(0))
    return torch.stack(terms).abs().sum(0)


def _channel_orders(model: TransformerModel, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if model.encoder.embed_tokens is model.decoder.embed_tokens:  # one table, one order
        scores = dict.fromkeys(SIDES, sum(scores.values()))
    return {side: torch.argsort(score, descending=True, stable=True) for side, score in scores.items()}
