"""A static twin as a model of CTranslate2, an inference engine for CPUs and GPUs (https://opennmt.net/CTranslate2).

CTranslate2 supports any FFN sizes and widths, but one number of heads per side and no cross-attention span. Layers with
fewer heads get heads of zeros, which change nothing. The engine differs from fairseq in two ways: it does not translate
empty lines; and it cuts a hypothesis at the length limit, where fairseq forces its end and adds the end to its score.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from mos_fairseq.errors import InputError
from mos_fairseq.export.stock import attention_weights
from mos_fairseq.export.stock_sizes import check_last_output_only
from mos_fairseq.files import write_folder_atomically
from mos_fairseq.models import TransformerSubnetModel
from mos_fairseq.models.transformer_config import embed_scale
from mos_fairseq.modules import MultiheadAttention
from mos_fairseq.modules.factored_linear import dense


def save_ctranslate2(
    twin: TransformerSubnetModel,
    vocabularies: Sequence[Sequence[str]],
    output: str | os.PathLike[str],
    quantization: str | None = None,
) -> None:
    """Write ``twin`` atomically into the new folder ``output``.

    Args:
        vocabularies: the words of source and target dictionary, in order.
        quantization: of the weights, one of :data:`mos_fairseq.export.QUANTIZATIONS`; None keeps them as they are.

    Raises:
        InputError: CTranslate2 is not installed or cannot express the subnet, or the folder exists or cannot be
            written.
    """
    try:
        from ctranslate2.specs import TransformerSpec
    except ImportError:
        raise InputError("format ctranslate2 needs the package ctranslate2: pip install ctranslate2") from None
    if os.path.exists(output):
        raise InputError(f"{output}: exists already; give the name of a new folder")
    check_last_output_only(twin.subnet, "CTranslate2")
    spec = TransformerSpec(_encoder(twin), _decoder(twin))
    spec.register_source_vocabulary(_words(vocabularies[0]))
    spec.register_target_vocabulary(_words(vocabularies[1]))
    # as in fairseq: </s> ends the source and begins the target
    spec.config.decoder_start_token = spec.config.eos_token
    spec.config.add_source_eos = True
    spec.validate()
    spec.optimize(quantization=quantization)
    write_folder_atomically(output, spec.save)


def _words(words: Sequence[str]) -> list[str]:
    return ["<blank>" if word == "<pad>" else word for word in words]


def _activation(twin: TransformerSubnetModel) -> int:
    from ctranslate2.specs.common_spec import Activation

    known = {
        "relu": Activation.RELU,
        "gelu": Activation.GELU,
        "gelu_accurate": Activation.GELUTanh,
        "swish": Activation.SWISH,
        "tanh": Activation.Tanh,
    }
    name = str(twin.cfg.activation_fn)
    if name not in known:
        raise InputError(f"activation_fn is {name}: CTranslate2 supports {', '.join(known)}")
    return known[name]


def _spec(kind, twin: TransformerSubnetModel, stack: nn.Module):
    """Return the empty specification of one stack. All its attentions have the same, largest number of heads."""
    if twin.cfg.no_token_positional_embeddings:
        raise InputError("no_token_positional_embeddings is set: CTranslate2 needs position embeddings")
    layers = twin.subnet.layers(stack.stack.name)
    heads = max(attention.heads for layer in layers for attention in layer.attentions.values())
    spec = kind(
        len(layers),
        heads,
        head_dim=1,
        pre_norm=stack.stack.normalize_before(twin.cfg),
        activation=_activation(twin),
        layernorm_embedding=twin.cfg.layernorm_embedding,
    )
    return spec, heads


def _encoder(twin: TransformerSubnetModel):
    from ctranslate2.specs.transformer_spec import TransformerEncoderSpec

    spec, heads = _spec(TransformerEncoderSpec, twin, twin.encoder)
    _set_side(spec, twin.encoder, spec.embeddings[0])
    for part, layer in zip(spec.layer, twin.encoder.layers, strict=True):
        _set_attention(part.self_attention, layer.self_attn, layer.self_attn_layer_norm, heads)
        _set_ffn(part.ffn, layer)
    return spec


def _decoder(twin: TransformerSubnetModel):
    from ctranslate2.specs.transformer_spec import TransformerDecoderSpec

    spec, heads = _spec(TransformerDecoderSpec, twin, twin.decoder)
    _set_side(spec, twin.decoder, spec.embeddings)
    spec.projection.weight = _array(twin.decoder.output_embedding.weight[:, : twin.decoder.embed_dim])
    for part, layer in zip(spec.layer, twin.decoder.layers, strict=True):
        _set_attention(part.self_attention, layer.self_attn, layer.self_attn_layer_norm, heads)
        _set_attention(part.attention, layer.encoder_attn, layer.encoder_attn_layer_norm, heads)
        _set_ffn(part.ffn, layer)
    return spec


def _set_side(spec, stack: nn.Module, embeddings) -> None:
    """Set what both sides have around their layers: embeddings, positions, norms."""
    weight = stack.embed_tokens.weight[:, : stack.embed_dim]
    embeddings.weight = _array(weight)
    spec.scale_embeddings = embed_scale(stack.cfg, stack.stack, stack.embed_dim)
    positions = stack.embed_positions
    rows = positions.table(weight)[positions.padding_idx + 1 : positions.num_rows]
    spec.position_encodings.encodings = _array(rows)
    if stack.layer_norm is not None:
        _set_norm(spec.layer_norm, stack.layer_norm)
    if stack.layernorm_embedding is not None:
        _set_norm(spec.layernorm_embedding, stack.layernorm_embedding)


def _set_attention(spec, attention: MultiheadAttention, norm: nn.Module, heads: int) -> None:
    width = attention.out_proj.in_features // attention.num_heads
    weights = attention_weights(attention, heads, width)
    groups = ("q", "kv") if attention.is_cross_attention else ("qkv",)
    for linear, parts in zip(spec.linear[:-1], groups, strict=True):
        linear.weight = np.concatenate([_array(weights[f"{part}_proj.weight"]) for part in parts])
        linear.bias = np.concatenate([_array(weights[f"{part}_proj.bias"]) for part in parts])
    _set_linear(spec.linear[-1], weights, "out_proj")
    spec.head_dim = np.dtype("int32").type(width)
    _set_norm(spec.layer_norm, norm)


def _set_ffn(spec, layer: nn.Module) -> None:
    for linear, module in ((spec.linear_0, layer.fc1), (spec.linear_1, layer.fc2)):
        linear.weight, linear.bias = map(_array, dense(module))
    _set_norm(spec.layer_norm, layer.final_layer_norm)


def _set_linear(spec, weights: Mapping[str, Tensor], name: str) -> None:
    spec.weight, spec.bias = _array(weights[f"{name}.weight"]), _array(weights[f"{name}.bias"])


def _set_norm(spec, norm: nn.Module) -> None:
    spec.gamma, spec.beta = _array(norm.weight), _array(norm.bias)


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
