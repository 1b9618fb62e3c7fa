"""The supernet that is made of a masked language model: fairseq's ``roberta``, or a BERT or RoBERTa of Hugging Face's
(see :mod:`mos_fairseq.warm_start.huggingface`)."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from fairseq.models.roberta.model import base_architecture
from torch import Tensor, nn

from mos_fairseq.checkpoints import read_checkpoint
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.export.check import check_same_model
from mos_fairseq.export.stock_sizes import StockSizes, option_names
from mos_fairseq.models import (
    RobertaMosConfig,
    RobertaMosModel,
    RobertaSubnetConfig,
    RobertaSubnetModel,
    placeholder_dictionary,
)
from mos_fairseq.models.transformer_config import RobertaBaseConfig
from mos_fairseq.search_space import FAMILIES, SearchSpace, Subnet
from mos_fairseq.warm_start.experts import part_experts
from mos_fairseq.warm_start.factors import fill, truncated
from mos_fairseq.warm_start.importance import Orders

FAMILY = FAMILIES["encoder_only"]
(STACK,) = FAMILY.stacks
_PREFIX = f"{STACK.name}.sentence_encoder."  # in fairseq's names of weights
_HEAD = f"{STACK.name}.lm_head."


@dataclass(frozen=True)
class MaskedModel:
    """A trained masked language model.

    Args:
        state: of its checkpoint, ``cfg`` as plain containers.
        model: it, as a static twin in eval mode.
        words: of its dictionary, where that is not a file of the user's: without ``<mask>``, which the task adds.
        has_head: whether its head for masked words was trained, too; or else it is drawn.
    """

    state: dict[str, Any]
    model: RobertaSubnetModel
    words: Sequence[str] | None = None
    has_head: bool = True


def read_roberta(path: str | os.PathLike[str]) -> MaskedModel:
    """Read a checkpoint of fairseq's ``roberta``.

    Raises:
        InputError: the file cannot be read, is of another architecture, or uses an option that supernets lack.
    """
    state = read_checkpoint(path)
    section = state["cfg"].get("model")
    args = Namespace(**(section if isinstance(section, Mapping) else vars(section)))
    arch = getattr(args, "arch", None) or getattr(args, "_name", None)
    if ARCH_MODEL_NAME_REGISTRY.get(arch) != "roberta":
        raise InputError(f"checkpoint {path}: its arch is {arch}, but a warm start of {FAMILY.name} is from roberta")
    weights, names = state["model"], option_names(STACK)
    base_architecture(args)
    for name, value in STACK.fixed.items():
        if bool(getattr(args, name)) != value:
            raise InputError(f"{name} is {getattr(args, name)} in the checkpoint: supernets have {value}")
    table = weights.get(f"{_PREFIX}embed_tokens.weight")
    positions = weights.get(f"{_PREFIX}embed_positions.weight")
    if table is None or positions is None:
        raise InputError(f"checkpoint {path}: its weights lack the embeddings")
    if getattr(args, names[1]) != sum(name.endswith(".fc1.weight") for name in weights):
        raise InputError(f"{names[1]} is {getattr(args, names[1])}: the checkpoint has another number of layers")
    words = placeholder_dictionary(len(table))
    values = {f.name: getattr(args, f.name) for f in fields(RobertaBaseConfig) if hasattr(args, f.name)}
    values |= {"max_positions": len(positions) - words.pad() - 1, "load_checkpoint_heads": False}
    sizes = StockSizes.from_options(vars(args), STACK)
    return MaskedModel(
        state, dense_model(values, sizes, words, weights, str(path)), has_head=f"{_HEAD}dense.weight" in weights
    )


def dense_model(
    options: Mapping[str, Any], sizes: StockSizes, words: Dictionary, weights: Mapping[str, Tensor], origin: str
) -> RobertaSubnetModel:
    """The static twin, in eval mode, with ``weights`` under the names of fairseq's ``roberta``. What they lack of the
    head for masked language modelling is drawn anew.

    Raises:
        InputError: a weight is missing, or of another size.
    """
    subnet = Subnet(FAMILY, **sizes.options(STACK))
    cfg = RobertaSubnetConfig(**{k: v for k, v in options.items() if not k.startswith("_")}, subnet=subnet.key)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = RobertaSubnetModel.from_subnet(cfg, subnet, words)
    state = model.state_dict()
    for name in list(state):
        if name == "position_dims" or (name.startswith(_HEAD) and name not in weights):
            continue
        try:
            value = _stock_weight(name, weights)
        except KeyError as error:
            raise InputError(f"{origin}: its weights lack {error.args[0]}") from None
        if value.shape != state[name].shape:
            shapes = f"{tuple(value.shape)}, its sizes say {tuple(state[name].shape)}"
            raise InputError(f"{origin}: {name} is {shapes}")
        state[name] = value.to(torch.float32)
    model.load_state_dict(state)
    return model.eval()


def _stock_weight(name: str, weights: Mapping[str, Tensor]) -> Tensor:
    if name.startswith(_HEAD):
        return weights[name]
    if name.startswith(f"{STACK.name}.output_embedding."):
        return weights.get(f"{_HEAD}weight", weights[f"{_PREFIX}embed_tokens.weight"])
    name = name.replace(f"{STACK.name}.", _PREFIX, 1)
    if ".qkv_proj." in name:
        return torch.cat([weights[name.replace("qkv_proj", f"{part}_proj")] for part in "qkv"])
    return weights[name]


def check_masked_space(subnet: Subnet, space: SearchSpace) -> None:
    """Raise InputError unless the largest subnet of ``space`` has the sizes of ``subnet``, a model's."""
    (largest, *_), (mine, *_) = (found.layers(STACK.name) for found in (space.largest(), subnet))
    inside, ffn, heads = STACK.inside(space.values).key, STACK.feed_forward, STACK.attentions[0]
    pairs = {
        STACK.width.key: (subnet.width(STACK.name), space.largest().width(STACK.name)),
        STACK.depth.key: (subnet[STACK.depth.key], space.max(STACK.depth.key)),
        inside: (mine.width, largest.width),
        ffn.size.key: (mine.ffn, largest.ffn),
        heads.heads.key: (mine.attentions[heads.name].heads, largest.attentions[heads.name].heads),
        "the width of its attention": tuple(layer.attentions[heads.name].inner for layer in (mine, largest)),
    }
    for name, (wanted, found) in pairs.items():
        if wanted != found:
            raise InputError(f"{name} of the model is {wanted}: that of the space's largest subnet is {found}")


def masked_supernet(
    source: MaskedModel, cfg: RobertaMosConfig, orders: Orders, expert_noise: float = 0.0, seed: int = 1
) -> RobertaMosModel:
    """A supernet, in eval mode, made of ``source`` as :func:`supernet_from` makes one. Maps around layers start as
    identities.

    Raises:
        InputError: the search space does not fit.
    """
    space = SearchSpace.from_spec(cfg.search_space or "")
    check_masked_space(source.model.subnet, space)
    at_least(0.0, expert_noise=expert_noise)
    for option in fields(RobertaBaseConfig):
        if not option.name.startswith("_"):
            setattr(cfg, option.name, getattr(source.model.cfg, option.name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RobertaMosModel.from_search_space(cfg, space, source.model.encoder.dictionary).eval()
    with torch.no_grad():
        _copy(source.model, model, orders)
        part_experts(model, expert_noise, torch.Generator().manual_seed(seed))
    origin = truncated(source.model, space.largest())
    check_same_model(model.get_active_subnet(), origin, "the supernet's largest subnet", "the model")
    return model


def _copy(source: RobertaSubnetModel, model: RobertaMosModel, orders: Orders) -> None:
    theirs, mine = source.encoder, model.encoder
    channels = orders.channels.get(STACK.name, torch.arange(theirs.embed_dim))
    for name in ("embed_tokens", "embed_positions", "output_embedding"):
        getattr(mine, name).weight.copy_(getattr(theirs, name).weight[:, channels])
    if mine.maps is not None:
        mine.maps.reset_parameters(identity=True)
    for name in ("layernorm_embedding", "layer_norm"):
        _copy_norm(getattr(theirs, name), getattr(mine, name), channels)
    _fill(mine.lm_head.dense, theirs.lm_head.dense, channels, channels)
    _copy_norm(theirs.lm_head.layer_norm, mine.lm_head.layer_norm, channels)
    mine.lm_head.bias.copy_(theirs.lm_head.bias)
    for index, (layer, target) in enumerate(zip(theirs.layers, mine.layers, strict=True)):
        neurons = orders.ffn.get((STACK.name, index), torch.arange(layer.fc1.out_features))
        _fill(target.fc1, layer.fc1, neurons, channels)
        _fill(target.fc2, layer.fc2, channels, neurons)
        _copy_norm(layer.final_layer_norm, target.final_layer_norm, channels)
        for block in STACK.attentions:
            attention, goal = getattr(layer, block.name), getattr(target, block.name)
            heads = orders.heads.get((STACK.name, index, block.name), torch.arange(attention.num_heads))
            inner = torch.arange(attention.out_proj.in_features).view(attention.num_heads, -1)[heads].flatten()
            _fill(goal.qkv_proj, attention.qkv_proj, inner, channels)
            _fill(goal.out_proj, attention.out_proj, channels, inner)
            name = f"{block.name}_layer_norm"
            _copy_norm(getattr(layer, name), getattr(target, name), channels)


def _copy_norm(source: nn.Module | None, target: nn.Module | None, channels: Tensor) -> None:
    if source is not None and target is not None:
        target.weight.copy_(source.weight[channels])
        target.bias.copy_(source.bias[channels])


def _fill(target: nn.Module, source: nn.Linear, rows: Tensor, columns: Tensor) -> None:
    """Every expert becomes ``source``, each group of its rows in the order of ``rows``, and ``columns`` in theirs."""
    groups = getattr(target, "groups", 1)
    weight, bias = (tensor.unflatten(0, (groups, -1)) for tensor in (source.weight, source.bias))
    fill(target, weight, bias, rows, columns)
