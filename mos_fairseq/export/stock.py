"""A static twin as a checkpoint of fairseq's own ``transformer``, which needs no plugin.

Stock fairseq knows one FFN size, one number of heads of width embed_dim / heads, and no cross-attention span. What
differs from layer to layer can be padded with zeros: a head of zeros adds zero, and so does a neuron whose outgoing
weights are zero. Padding changes no result, but it costs what the padded model costs.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer.transformer_legacy import base_architecture
from torch import Tensor, nn

from mos_fairseq.errors import InputError
from mos_fairseq.export.check import ExportError, check_same_model
from mos_fairseq.export.checkpoint import model_checkpoint
from mos_fairseq.models import TransformerSubnetModel
from mos_fairseq.modules import MultiheadAttention

_SAME_OPTIONS = (
    "activation_fn",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "encoder_normalize_before",
    "decoder_normalize_before",
    "no_token_positional_embeddings",
    "layernorm_embedding",
    "no_scale_embedding",
    "max_source_positions",
    "max_target_positions",
)


@dataclass(frozen=True)
class StockSizes:
    """What stock fairseq has one number of for a whole side."""

    embed_dim: int
    layers: int
    ffn_embed_dim: int
    heads: int


def stock_checkpoint(
    state: dict[str, Any], twin: TransformerSubnetModel, allow_padding: bool = False
) -> dict[str, Any]:
    """A ``transformer`` checkpoint that computes what ``twin``, cut out of the supernet of ``state``, computes.

    Args:
        allow_padding: pad layers that are smaller than others with zeros, where that makes the subnet expressible.

    Raises:
        InputError: stock fairseq cannot express the subnet; says why.
    """
    sizes = {side: stock_sizes(twin, side, allow_padding) for side in ("encoder", "decoder")}
    if any(span != 1 for span in twin.subnet.cross_spans):
        raise InputError(
            f"decoder_arbitrary_ende_attn is {list(twin.subnet.decoder_arbitrary_ende_attn)}: stock fairseq attends to "
            "the last encoder layer only (-1)"
        )
    if twin.cfg.activation_fn == "swish":
        raise InputError("activation_fn is swish: stock fairseq's does not run")
    args = _arguments(twin, sizes)
    dictionaries = SimpleNamespace(source_dictionary=twin.encoder.dictionary, target_dictionary=twin.decoder.dictionary)
    stock = TransformerModel.build_model(Namespace(**vars(args)), dictionaries).eval()
    weights = _weights(twin, args, sizes)
    missing, unknown = nn.Module.load_state_dict(stock, weights, strict=False)
    # sinusoidal positions keep a buffer of no meaning
    if absent := [name for name in missing if not name.endswith(("version", "_float_tensor"))] + unknown:
        raise ExportError(f"fairseq's transformer and the subnet differ in their weights: {', '.join(absent)}")
    check_same_model(stock, twin, "fairseq's transformer", "the subnet")
    checkpoint = model_checkpoint(state, None, stock.state_dict())
    checkpoint["cfg"]["model"] = _namespace({"task": "translation"} | checkpoint["cfg"]["task"] | vars(args))
    return checkpoint


def _namespace(values: dict[str, Any]) -> OrderedDict[str, Any]:
    """What stands for the namespace in which fairseq saves the options of model and task: one that torch's safe reader
    takes without any plugin. fairseq and CTranslate2's converter of its models read the attributes."""
    namespace = OrderedDict(values)
    vars(namespace).update(values)
    return namespace


def stock_sizes(twin: TransformerSubnetModel, side: str, allow_padding: bool) -> StockSizes:
    """The sizes of the stock ``side`` that can hold ``twin``'s. Raises InputError if there are none."""
    subnet = twin.subnet
    embed_dim = getattr(subnet, f"{side}_embed_dim")
    ffns = getattr(subnet, f"{side}_ffn_embed_dim")
    attentions = [m for m in getattr(twin, side).modules() if isinstance(m, MultiheadAttention)]
    shapes = {(m.num_heads, m.out_proj.in_features // m.num_heads) for m in attentions}
    heads, width = max(h for h, _ in shapes), max(w for _, w in shapes)
    listing = " and ".join(f"{h} heads of width {w}" for h, w in sorted(shapes, reverse=True))
    hint = "" if allow_padding else "; padding with zeros (--allow-padding) may help"
    if len(shapes) == 1 and heads * width == embed_dim:
        pass
    elif not allow_padding:
        raise InputError(
            f"{side} has {listing}: stock fairseq has one number of heads, which together are as wide as "
            f"{side}_embed_dim={embed_dim}{hint}"
        )
    else:
        fitting = [h for h in range(heads, embed_dim // width + 1) if embed_dim % h == 0]
        if not fitting:
            raise InputError(
                f"{side} has {listing}: no number of heads that divides {side}_embed_dim={embed_dim} has room for them"
            )
        heads = fitting[0]
    if len(set(ffns)) > 1 and not allow_padding:
        raise InputError(f"{side}_ffn_embed_dim is {list(ffns)}: stock fairseq has one size for all layers{hint}")
    return StockSizes(embed_dim, len(ffns), max(ffns), heads)


def _arguments(twin: TransformerSubnetModel, sizes: dict[str, StockSizes]) -> Namespace:
    """The model's part of the configuration, as ``fairseq-train --arch transformer`` saves it."""
    cfg = twin.cfg
    values = {name: getattr(cfg, name) for name in _SAME_OPTIONS}
    values["activation_fn"] = str(values["activation_fn"])
    for side, size in sizes.items():
        values |= {
            f"{side}_embed_dim": size.embed_dim,
            f"{side}_layers": size.layers,
            f"{side}_ffn_embed_dim": size.ffn_embed_dim,
            f"{side}_attention_heads": size.heads,
            f"{side}_learned_pos": _positions(twin, side) is not None,
        }
    shared, equal = cfg.share_all_embeddings, sizes["encoder"].embed_dim == sizes["decoder"].embed_dim
    values["share_all_embeddings"] = shared and equal  # stock fairseq shares between sides of one width
    values["share_decoder_input_output_embed"] = shared or cfg.share_decoder_input_output_embed
    args = Namespace(_name="transformer", arch="transformer", **values)
    base_architecture(args)
    return args


def _positions(twin: TransformerSubnetModel, side: str) -> Tensor | None:
    """The side's table of positions [rows, d] where stock fairseq has to learn it: learned ones, or the first columns
    of a wider table of sinusoids, which it cannot compute."""
    stack = getattr(twin, side)
    positions = stack.embed_positions
    if positions is None or (positions.weight is None and positions.embedding_dim == stack.embed_dim):
        return None
    return positions.table(torch.zeros(stack.embed_dim))[: positions.num_rows]


def _weights(twin: TransformerSubnetModel, args: Namespace, sizes: dict[str, StockSizes]) -> dict[str, Tensor]:
    """``twin``'s weights under stock fairseq's names and in its shapes."""
    result: dict[str, Tensor] = {}
    for side, size in sizes.items():
        stack = getattr(twin, side)
        result[f"{side}.embed_tokens.weight"] = stack.embed_tokens.weight[:, : stack.embed_dim]
        if (table := _positions(twin, side)) is not None:
            result[f"{side}.embed_positions.weight"] = table
        for name in ("layernorm_embedding", "layer_norm"):
            if (norm := getattr(stack, name)) is not None:
                result |= _named(f"{side}.{name}", norm.weight, norm.bias)
        for index, layer in enumerate(stack.layers):
            result |= {f"{side}.layers.{index}.{k}": v for k, v in _layer_weights(layer, size).items()}
    output = twin.decoder.output_embedding.weight[:, : twin.decoder.embed_dim]
    result["decoder.output_projection.weight"] = output
    return {name: tensor.detach() for name, tensor in result.items()}


def _layer_weights(layer: nn.Module, size: StockSizes) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for name, module in layer.named_children():
        if isinstance(module, MultiheadAttention):
            parts = attention_weights(module, size.heads, size.embed_dim // size.heads)
            result |= {f"{name}.{k}": v for k, v in parts.items()}
        elif isinstance(module, nn.LayerNorm):
            result |= _named(name, module.weight, module.bias)
    fc1, fc2, ffn = layer.fc1, layer.fc2, size.ffn_embed_dim
    result |= _named("fc1", _pad(fc1.weight, 0, ffn), _pad(fc1.bias, 0, ffn))
    return result | _named("fc2", _pad(fc2.weight, 1, ffn), fc2.bias)


def attention_weights(attention: MultiheadAttention, heads: int, width: int) -> dict[str, Tensor]:
    """Weights and biases of ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj`` with room for ``heads`` heads of
    ``width``: zeros are appended to what the attention has less."""
    own_heads = attention.num_heads
    own_width = attention.out_proj.in_features // own_heads
    if attention.is_cross_attention:
        fused = [(attention.q_proj, "q"), (attention.kv_proj, "kv")]
    else:
        fused = [(attention.qkv_proj, "qkv")]

    def roomy(rows: Tensor) -> Tensor:
        """[own heads * own width, …] -> [heads * width, …]"""
        return _pad(_pad(rows.unflatten(0, (own_heads, own_width)), 1, width), 0, heads).flatten(0, 1)

    result: dict[str, Tensor] = {}
    for module, parts in fused:
        for part, weight, bias in zip(
            parts, module.weight.chunk(len(parts)), module.bias.chunk(len(parts)), strict=True
        ):
            # scores are divided by the root of the width, which padding changes
            factor = math.sqrt(width / own_width) if part == "q" else 1.0
            result |= _named(f"{part}_proj", factor * roomy(weight), factor * roomy(bias))
    out = attention.out_proj
    return result | _named("out_proj", roomy(out.weight.T).T, out.bias)


def _pad(tensor: Tensor, dim: int, size: int) -> Tensor:
    """Zeros appended along ``dim`` up to ``size``."""
    missing = list(tensor.shape)
    missing[dim] = size - tensor.size(dim)
    return torch.cat([tensor, tensor.new_zeros(missing)], dim) if missing[dim] else tensor


def _named(prefix: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {f"{prefix}.weight": weight, f"{prefix}.bias": bias}
