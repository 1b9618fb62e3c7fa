"""A static twin as a checkpoint of fairseq's own ``transformer``, ``transformer_lm`` or ``roberta``, without plugin.

Stock fairseq has one FFN size, one number of heads of width embed_dim / heads, and no cross-attention span. Differences
between layers can be padded with zeros: a head of zeros adds zero, and so does a neuron whose outgoing weights are
zero. Padding changes no result, but adds the cost of the padded sizes.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.models import ARCH_CONFIG_REGISTRY, MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY
from torch import Tensor, nn

from mos_fairseq.checkpoints import model_checkpoint, stock_task
from mos_fairseq.errors import InputError
from mos_fairseq.export.check import ExportError, check_same_model
from mos_fairseq.export.stock_sizes import STOCK_ARCHITECTURES, StockSizes, stock_sizes
from mos_fairseq.models import StaticTwin
from mos_fairseq.modules import ClassificationHead, LayerOptions, MultiheadAttention
from mos_fairseq.modules.factored_linear import dense


def stock_checkpoint(state: dict[str, Any], twin: StaticTwin, allow_padding: bool = False) -> dict[str, Any]:
    """Return a checkpoint of fairseq's own model that computes the same as ``twin``, cut out of the supernet of
    ``state``.

    Args:
        allow_padding: pad smaller layers with zeros if that makes the subnet expressible.

    Raises:
        InputError: stock fairseq cannot express the subnet; the message says why.
    """
    sizes = stock_sizes(twin.subnet, allow_padding)
    if twin.cfg.activation_fn == "swish":
        raise InputError("activation_fn is swish: stock fairseq's implementation fails")
    epsilon = getattr(twin.cfg, "layer_norm_eps", LayerOptions.layer_norm_eps)
    if epsilon != LayerOptions.layer_norm_eps:
        raise InputError(f"layer_norm_eps is {epsilon}: stock fairseq's is {LayerOptions.layer_norm_eps}")
    args = _arguments(twin, sizes, state["cfg"]["task"])
    words = [getattr(twin, stack.name).dictionary for stack in twin.family.stacks]
    dictionaries = SimpleNamespace(source_dictionary=words[0], target_dictionary=words[-1])
    stock = MODEL_REGISTRY[args.arch].build_model(args, dictionaries)
    for name, head in heads_of(twin).items():
        stock.register_classification_head(name, head.num_classes, head.inner_dim)
    stock.eval()
    missing, unknown = nn.Module.load_state_dict(stock, _weights(twin, sizes), strict=False)
    # sinusoidal positions have a buffer without meaning
    if absent := [name for name in missing if not name.endswith(("version", "_float_tensor"))] + unknown:
        raise ExportError(f"fairseq's {args.arch} and the subnet differ in their weights: {', '.join(absent)}")
    check_same_model(stock, twin, f"fairseq's {args.arch}", "the subnet")
    checkpoint = model_checkpoint(state, None, stock.state_dict())
    checkpoint["cfg"]["model"] = _model_section(args, {"task": stock_task(state)} | checkpoint["cfg"]["task"])
    return checkpoint


def _model_section(args: Namespace, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model options as fairseq saves them: the dataclass' fields if the model has one, otherwise a namespace
    that also has the task's options."""
    if args.arch in MODEL_DATACLASS_REGISTRY:
        return {name: value for name, value in vars(args).items() if name != "arch"}
    return _namespace({**task, **vars(args)})


def _namespace(values: dict[str, Any]) -> OrderedDict[str, Any]:
    """Return a substitute for the namespace in which fairseq saves the options of model and task. torch's safe reader
    reads it without a plugin. fairseq and CTranslate2's converter of its models read the attributes."""
    namespace = OrderedDict(values)
    vars(namespace).update(values)
    return namespace


def _arguments(twin: StaticTwin, sizes: dict[str, StockSizes], task: Mapping[str, Any]) -> Namespace:
    """Return the model options that ``fairseq-train --arch transformer`` (or ``transformer_lm``) would save, given the
    task's options ``task``."""
    name, cfg, family = STOCK_ARCHITECTURES[twin.family.name], twin.cfg, twin.family
    values = {field.name: getattr(cfg, field.name) for field in fields(cfg)}  # named as fairseq's
    del values["subnet"]
    values |= {"_name": name, "arch": name, "activation_fn": str(cfg.activation_fn)}
    for stack in family.stacks:
        values |= sizes[stack.name].options(stack)
        values[f"{stack.name}_learned_pos"] = _positions(getattr(twin, stack.name)) is not None
        values[f"{stack.name}_normalize_before"] = stack.normalize_before(cfg)
    if family.head is None:
        values |= {f"{family.output}_{end}_dim": sizes[family.output].width for end in ("input", "output")}
    if getattr(cfg, "share_all_embeddings", False):
        # stock fairseq shares embeddings between stacks of one width only
        values["share_all_embeddings"] = len({size.width for size in sizes.values()}) == 1
        values["share_decoder_input_output_embed"] = True
    return _with_defaults(values, task)


def _with_defaults(values: dict[str, Any], task: Mapping[str, Any]) -> Namespace:
    """Return the options of fairseq's model: ``values``, options taken from the task's, and fairseq's defaults."""
    arch = values["arch"]
    if arch in MODEL_DATACLASS_REGISTRY:
        defaults = {name: task.get(name, value) for name, value in vars(MODEL_DATACLASS_REGISTRY[arch]()).items()}
        # defaults that refer to other parts of the configuration stay unset
        values = {name: value for name, value in defaults.items() if "${" not in str(value)} | values
    args = Namespace(**values)
    ARCH_CONFIG_REGISTRY[arch](args)
    return args


def _positions(stack: nn.Module) -> Tensor | None:
    """Return the stack's table of positions [rows, d] if stock fairseq needs it as learned positions; otherwise None.

    It needs learned ones, and the first columns of a wider table of sinusoids, which it cannot compute.
    """
    positions = stack.embed_positions
    if positions is None or (positions.weight is None and positions.embedding_dim == stack.embed_dim):
        return None
    return positions.table(torch.zeros(stack.embed_dim))[: positions.num_rows]


def _weights(twin: StaticTwin, sizes: dict[str, StockSizes]) -> dict[str, Tensor]:
    """Return ``twin``'s weights under stock fairseq's names and in its shapes."""
    result: dict[str, Tensor] = {}
    for name, size in sizes.items():
        stack = getattr(twin, name)
        name += ".sentence_encoder" if twin.family.head is not None else ""
        result[f"{name}.embed_tokens.weight"] = stack.embed_tokens.weight[:, : stack.embed_dim]
        if (table := _positions(stack)) is not None:
            result[f"{name}.embed_positions.weight"] = table
        for norm_name in ("layernorm_embedding", "layer_norm"):
            if (norm := getattr(stack, norm_name)) is not None:
                result |= _named(f"{name}.{norm_name}", norm.weight, norm.bias)
        for index, layer in enumerate(stack.layers):
            result |= {f"{name}.layers.{index}.{k}": v for k, v in layer_weights(layer, size).items()}
    output, name = getattr(twin, twin.family.output), twin.family.output
    weight = output.output_embedding.weight[:, : output.embed_dim]
    if twin.family.head is None:
        result[f"{name}.output_projection.weight"] = weight
    else:
        result[f"{name}.lm_head.weight"] = weight
        result |= {f"{name}.lm_head.{k}": v for k, v in output.lm_head.state_dict().items()}
    for name, head in heads_of(twin).items():
        result |= {f"classification_heads.{name}.{k}": v for k, v in head.state_dict().items()}
    return {name: tensor.detach() for name, tensor in result.items()}


def heads_of(twin: StaticTwin) -> Mapping[str, ClassificationHead]:
    """Return the classification heads by name; only a fine-tuned masked language model has some."""
    return getattr(twin, "classification_heads", {})


def layer_weights(layer: nn.Module, size: StockSizes) -> dict[str, Tensor]:
    """Return the weights of one layer under stock fairseq's names, padded to ``size``."""
    result: dict[str, Tensor] = {}
    for name, module in layer.named_children():
        if isinstance(module, MultiheadAttention):
            parts = attention_weights(module, size.heads, size.width // size.heads)
            result |= {f"{name}.{k}": v for k, v in parts.items()}
        elif isinstance(module, nn.LayerNorm):
            result |= _named(name, module.weight, module.bias)
    (weight1, bias1), (weight2, bias2) = dense(layer.fc1), dense(layer.fc2)
    result |= _named("fc1", _pad(weight1, 0, size.ffn), _pad(bias1, 0, size.ffn))
    return result | _named("fc2", _pad(weight2, 1, size.ffn), bias2)


def attention_weights(attention: MultiheadAttention, heads: int, width: int) -> dict[str, Tensor]:
    """Return weights and biases of ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj``, padded with zeros to ``heads``
    heads of ``width``."""
    own_heads = attention.num_heads
    own_width = attention.out_proj.in_features // own_heads
    if attention.is_cross_attention:
        fused = [(attention.q_proj, "q"), (attention.kv_proj, "kv")]
    else:
        fused = [(attention.qkv_proj, "qkv")]

    def roomy(rows: Tensor) -> Tensor:
        """Pad [own heads * own width, …] to [heads * width, …]."""
        return _pad(_pad(rows.unflatten(0, (own_heads, own_width)), 1, width), 0, heads).flatten(0, 1)

    result: dict[str, Tensor] = {}
    for module, parts in fused:
        for part, weight, bias in zip(
            parts, module.weight.chunk(len(parts)), module.bias.chunk(len(parts)), strict=True
        ):
            # scores are divided by the square root of the width, which padding changes
            factor = math.sqrt(width / own_width) if part == "q" else 1.0
            result |= _named(f"{part}_proj", factor * roomy(weight), factor * roomy(bias))
    out = attention.out_proj
    return result | _named("out_proj", roomy(out.weight.T).T, out.bias)


def _pad(tensor: Tensor, dim: int, size: int) -> Tensor:
    """Pad with zeros along ``dim`` up to ``size``."""
    missing = list(tensor.shape)
    missing[dim] = size - tensor.size(dim)
    return torch.cat([tensor, tensor.new_zeros(missing)], dim) if missing[dim] else tensor


def _named(prefix: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {f"{prefix}.weight": weight, f"{prefix}.bias": bias}
