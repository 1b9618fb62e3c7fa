"""The supernet that is made of a stock model: its weights in the order of importance, in every expert."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from typing import Any

import torch
from fairseq.models.transformer import TransformerModel
from fairseq.modules import SinusoidalPositionalEmbedding
from fairseq.tasks import TASK_REGISTRY
from torch import Tensor, nn

from mos_fairseq.checkpoints import model_checkpoint
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.export.check import check_same_model
from mos_fairseq.models import Supernet, TransformerMosConfig, TransformerMosModel
from mos_fairseq.models.transformer_config import TransformerBaseConfig
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.warm_start.experts import part_experts
from mos_fairseq.warm_start.factors import fill, truncated
from mos_fairseq.warm_start.family import FAMILY, SIDES
from mos_fairseq.warm_start.importance import Orders
from mos_fairseq.warm_start.stock import StockModel, check_space


def supernet_from(
    stock: StockModel, cfg: TransformerMosConfig, orders: Orders, expert_noise: float = 0.0, seed: int = 1
) -> TransformerMosModel:
    """A supernet, in eval mode, whose largest subnet computes what the stock model does, or with ranks of the space
    what they can express of it.

    Every expert starts as the stock model's matrix, plus noise that cancels in the largest subnet (see
    :func:`part_experts`). So sum_e p_e W_e, with the mixing weights p that the fresh router gives to that subnet, is
    the stock model's matrix, while experts (and what other subnets mix of them) differ from the start.

    Args:
        cfg: options of the supernet: ``search_space`` and those of its routing; the rest is taken from the stock
            model, but for learned positions, which ``cfg`` may have where the stock model has sinusoids: they start
            as these.
        orders: of its neurons, heads and channels (``Orders()`` leaves everything in place).
        seed: of routers and noise.

    Raises:
        InputError: the search space does not fit, or channels are ordered while positions are sinusoids.
    """
    space = SearchSpace.from_spec(cfg.search_space or "")
    check_space(stock.args, space)
    at_least(0.0, expert_noise=expert_noise)
    _take_options(cfg, stock.args)
    if orders.channels and not (cfg.no_token_positional_embeddings or _learns_positions(cfg)):
        raise InputError("channels cannot be reordered under sinusoidal positions, which are fixed: learn positions")
    dictionaries = [getattr(stock.model, side).dictionary for side in SIDES]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TransformerMosModel.from_search_space(cfg, space, *dictionaries).eval()
    with torch.no_grad():
        _copy_stacks(stock.model, model, orders)
        part_experts(model, expert_noise, torch.Generator().manual_seed(seed))
    origin = truncated(stock.model, space.largest())
    check_same_model(model.get_active_subnet(), origin, "the supernet's largest subnet", "the checkpoint")
    return model


def _learns_positions(cfg: TransformerMosConfig) -> bool:
    return all(getattr(cfg, f"{side}_learned_pos") for side in SIDES)


def _take_options(cfg: TransformerMosConfig, args: Namespace) -> None:
    """What a stock model and a supernet have in common, from the stock model's ``args`` into ``cfg``."""
    learned = {f"{side}_learned_pos": getattr(cfg, f"{side}_learned_pos") for side in SIDES}
    for option in fields(TransformerBaseConfig):
        if not option.name.startswith("_") and hasattr(args, option.name):
            setattr(cfg, option.name, getattr(args, option.name))
    for name, wanted in learned.items():
        setattr(cfg, name, bool(wanted or getattr(args, name)))
    for name in ("max_source_positions", "max_target_positions"):
        setattr(cfg, name, int(getattr(args, name, None) or 1024))


def _copy_stacks(stock: TransformerModel, model: TransformerMosModel, orders: Orders) -> None:
    widths = {side: getattr(model, side).embed_dim for side in SIDES}
    channels = {side: orders.channels.get(side, torch.arange(width)) for side, width in widths.items()}
    for side in SIDES:
        theirs, mine = getattr(stock, side), getattr(model, side)
        mine.embed_tokens.weight.copy_(theirs.embed_tokens.weight[:, channels[side]])
        if mine.embed_positions is not None and mine.embed_positions.weight is not None:
            table = _positions(theirs.embed_positions, mine.embed_positions.num_rows)
            mine.embed_positions.weight.copy_(table[:, channels[side]])
        for name in ("layernorm_embedding", "layer_norm"):
            _copy_norm(getattr(theirs, name, None), getattr(mine, name), channels[side])
        for index, (source, target) in enumerate(zip(theirs.layers, mine.layers, strict=True)):
            _copy_layer(source, target, (side, index), channels, orders)
    theirs, mine = getattr(stock, FAMILY.output), getattr(model, FAMILY.output)
    mine.output_embedding.weight.copy_(theirs.output_projection.weight[:, channels[FAMILY.output]])


def _positions(positions: nn.Module, rows: int) -> Tensor:
    """The stock table of positions [rows, d]."""
    if isinstance(positions, SinusoidalPositionalEmbedding):
        return SinusoidalPositionalEmbedding.get_embedding(rows, positions.embedding_dim, positions.padding_idx)
    return positions.weight


def _copy_norm(source: nn.Module | None, target: nn.Module | None, channels: Tensor) -> None:
    if source is not None and target is not None:
        target.weight.copy_(source.weight[channels])
        target.bias.copy_(source.bias[channels])


def _copy_layer(
    source: nn.Module, target: nn.Module, place: tuple[str, int], channels: dict[str, Tensor], orders: Orders
) -> None:
    attentions, own = FAMILY.stack(place[0]).attentions, channels[place[0]]
    for name in (*(f"{block.name}_layer_norm" for block in attentions), "final_layer_norm"):
        _copy_norm(getattr(source, name), getattr(target, name), own)
    neurons = orders.ffn.get(place, torch.arange(source.fc1.out_features))
    _fill(target.fc1, [source.fc1], neurons, own)
    _fill(target.fc2, [source.fc2], own, neurons)
    for block in attentions:
        attention, memory = getattr(source, block.name), channels[block.reads or place[0]]
        heads = orders.heads.get((*place, block.name), torch.arange(attention.num_heads))
        inner = torch.arange(attention.out_proj.in_features).view(attention.num_heads, -1)[heads].flatten()
        mine = getattr(target, block.name)
        if mine.is_cross_attention:
            _fill(mine.q_proj, [attention.q_proj], inner, own)
            _fill(mine.kv_proj, [attention.k_proj, attention.v_proj], inner, memory)
        else:
            _fill(mine.qkv_proj, [attention.q_proj, attention.k_proj, attention.v_proj], inner, own)
        _fill(mine.out_proj, [attention.out_proj], own, inner)


def _fill(target: nn.Module, sources: list[nn.Module], rows: Tensor, columns: Tensor) -> None:
    """Every expert becomes the stacked ``sources``, in the order of ``rows`` and ``columns``."""
    weight, bias = (torch.stack([getattr(source, name) for source in sources]) for name in ("weight", "bias"))
    fill(target, weight, bias, rows, columns)


def supernet_checkpoint(state: dict[str, Any], model: Supernet) -> dict[str, Any]:
    """A checkpoint of the supernet, as ``fairseq-train`` would have saved it, without optimizer state.

    Args:
        state: of the checkpoint of the model that it is made of.
    """
    options = {option.name: getattr(model.cfg, option.name) for option in fields(model.cfg)}
    space = model.search_space.dumps()
    options |= {"_name": model.arch, "search_space": space}
    checkpoint = model_checkpoint(state, options, model.state_dict(), TASK_REGISTRY[model.task].stock)
    checkpoint["optimizer_history"][-1]["num_updates"] = 0  # of the supernet
    checkpoint["cfg"]["task"] |= {"_name": model.task, "search_space": space}
    return checkpoint
