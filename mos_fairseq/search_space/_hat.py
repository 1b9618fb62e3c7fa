"""HAT's published argument files, and the columns of its latency files (arXiv 2005.14187).

Search spaces have `*-choice` keys, subnets `*-subtransformer` keys. Both may also hold options of HAT's training, which
are ignored.
"""

from collections.abc import Mapping
from typing import Any

from mos_fairseq.errors import InputError

SPACE_SUFFIX, SUBNET_SUFFIX = "-choice", "-subtransformer"

HAT_SPACE_KEYS = {
    "encoder-embed-choice": "encoder_embed_dim",
    "decoder-embed-choice": "decoder_embed_dim",
    "encoder-layer-num-choice": "encoder_layers",
    "decoder-layer-num-choice": "decoder_layers",
    "encoder-ffn-embed-dim-choice": "encoder_ffn_embed_dim",
    "encoder-self-attention-heads-choice": "encoder_attention_heads",
    "decoder-ffn-embed-dim-choice": "decoder_ffn_embed_dim",
    "decoder-self-attention-heads-choice": "decoder_attention_heads",
    "decoder-ende-attention-heads-choice": "decoder_ende_attention_heads",
    "decoder-arbitrary-ende-attn-choice": "decoder_arbitrary_ende_attn",
}
HAT_SUBNET_KEYS = {
    "encoder-embed-dim-subtransformer": "encoder_embed_dim",
    "decoder-embed-dim-subtransformer": "decoder_embed_dim",
    "encoder-layer-num-subtransformer": "encoder_layers",
    "decoder-layer-num-subtransformer": "decoder_layers",
    "encoder-ffn-embed-dim-all-subtransformer": "encoder_ffn_embed_dim",
    "encoder-self-attention-heads-all-subtransformer": "encoder_attention_heads",
    "decoder-ffn-embed-dim-all-subtransformer": "decoder_ffn_embed_dim",
    "decoder-self-attention-heads-all-subtransformer": "decoder_attention_heads",
    "decoder-ende-attention-heads-all-subtransformer": "decoder_ende_attention_heads",
    "decoder-arbitrary-ende-attn-all-subtransformer": "decoder_arbitrary_ende_attn",
}
# columns of a published file of latencies, in order; after them, encoder and decoder mean and standard deviation in ms
HAT_COLUMNS = (
    "encoder_embed_dim",
    "encoder_layer_num",
    "encoder_ffn_embed_dim_avg",
    "encoder_self_attention_heads_avg",
    "decoder_embed_dim",
    "decoder_layer_num",
    "decoder_ffn_embed_dim_avg",
    "decoder_self_attention_heads_avg",
    "decoder_ende_attention_heads_avg",
    "decoder_arbitrary_ende_attn_avg",
)
HAT_LATENCIES = ("latency_mean_encoder", "latency_mean_decoder")
_WIDTH = "qkv-dim"
_FLAGS = ("train-subtransformer",)  # an option of HAT's training that ends like a size

HAT_QKV_DIM = 512
"""The attention width of every published space of HAT; its subnet files do not repeat it."""


def is_hat_space(data: Mapping[Any, Any]) -> bool:
    """Return whether a file has the keys of HAT's search spaces."""
    return _has_keys(data, SPACE_SUFFIX)


def is_hat_subnet(data: Mapping[Any, Any]) -> bool:
    """Return whether a file has the keys of HAT's subnets."""
    return _has_keys(data, SUBNET_SUFFIX)


def space_from_hat(data: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a search space under our keys. Raises `InputError` for an unknown `*-choice` key, or without `qkv-dim`."""
    result = _translated(data, HAT_SPACE_KEYS, SPACE_SUFFIX)
    if "qkv_dim" not in result:
        raise InputError(f"missing key {_WIDTH}, the width of the attention, which HAT's search spaces have")
    return result


def subnet_from_hat(data: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a subnet under our keys. Raises `InputError` for an unknown `*-subtransformer` key."""
    return _translated(data, HAT_SUBNET_KEYS, SUBNET_SUFFIX)


def _has_keys(data: Mapping[Any, Any], suffix: str) -> bool:
    return any(isinstance(key, str) and key.endswith(suffix) and key not in _FLAGS for key in data)


def _translated(data: Mapping[Any, Any], keys: Mapping[str, str], suffix: str) -> dict[str, Any]:
    """Return the values of `keys` and `qkv-dim` under our names; other keys are ignored unless they end in `suffix`."""
    result = {}
    for key, value in data.items():
        if key in keys:
            result[keys[key]] = value
        elif key == _WIDTH:
            result["qkv_dim"] = value
        elif isinstance(key, str) and key.endswith(suffix) and key not in _FLAGS:
            raise InputError(f"unknown key {' '.join(key.split())}; HAT's keys are {', '.join(keys)}")
    return result
