"""Reading a checkpoint of fairseq's own ``transformer``, and what a search space must have to hold it."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer.transformer_legacy import base_architecture

from mos_fairseq.errors import InputError
from mos_fairseq.export.checkpoint import read_checkpoint
from mos_fairseq.models import placeholder_dictionary
from mos_fairseq.search_space import SearchSpace

# what stock fairseq can do and a supernet cannot
_UNSUPPORTED = (
    "adaptive_input",
    "adaptive_softmax_cutoff",
    "cross_self_attention",
    "no_cross_attention",
    "no_decoder_final_norm",
    "tie_adaptive_weights",
    "merge_src_tgt_embed",
    "encoder_layers_to_keep",
    "decoder_layers_to_keep",
)


@dataclass(frozen=True)
class StockModel:
    """A checkpoint of fairseq's ``transformer``: its content with ``cfg`` as plain containers, its options, and the
    model in eval mode, whose dictionaries have the right sizes but no words."""

    state: dict[str, Any]
    args: Namespace
    model: TransformerModel


def read_transformer(path: str | os.PathLike[str]) -> StockModel:
    """Read a checkpoint.

    Raises:
        InputError: the file cannot be read, is of another architecture, or uses an option that supernets lack.
    """
    state = read_checkpoint(path)
    weights = state["model"]
    model = state["cfg"].get("model")
    args = Namespace(**(model if isinstance(model, Mapping) else vars(model)))
    arch = getattr(args, "arch", None) or getattr(args, "_name", None)
    if ARCH_MODEL_NAME_REGISTRY.get(arch) != "transformer" or not hasattr(args, "encoder_embed_dim"):
        raise InputError(f"checkpoint {path}: its arch is {arch}, but a warm start is from fairseq's transformer")
    base_architecture(args)
    _check_options(args)
    try:
        sizes = [len(weights[f"{side}.embed_tokens.weight"]) for side in ("encoder", "decoder")]
    except KeyError:
        raise InputError(f"checkpoint {path}: its weights lack the embeddings") from None
    words = [placeholder_dictionary(size) for size in sizes]
    built = TransformerModel.build_model(args, SimpleNamespace(source_dictionary=words[0], target_dictionary=words[1]))
    try:
        built.load_state_dict(weights)
    except RuntimeError:
        raise InputError(f"checkpoint {path}: its weights do not fit its own configuration") from None
    return StockModel(state, args, built.eval())


def _check_options(args: Namespace) -> None:
    for name in _UNSUPPORTED:
        if getattr(args, name, None):
            raise InputError(f"{name} is {getattr(args, name)} in the checkpoint: supernets have no such thing")
    for name in ("decoder_input_dim", "decoder_output_dim"):
        if getattr(args, name) != args.decoder_embed_dim:
            raise InputError(
                f"{name} is {getattr(args, name)} in the checkpoint: supernets need decoder_embed_dim, "
                f"{args.decoder_embed_dim}"
            )
    if getattr(args, "activation_fn", None) == "swish":
        raise InputError("activation_fn is swish in the checkpoint: stock fairseq's does not run")


def check_space(args: Namespace, space: SearchSpace) -> None:
    """Raise InputError unless the largest subnet of ``space`` has the sizes of the model with the options ``args``."""
    heads = {"encoder_attention_heads": args.encoder_attention_heads}
    heads |= dict.fromkeys(("decoder_attention_heads", "decoder_ende_attention_heads"), args.decoder_attention_heads)
    keys = [f"{side}_{size}" for side in ("encoder", "decoder") for size in ("embed_dim", "layers", "ffn_embed_dim")]
    wanted = {key: getattr(args, key) for key in keys} | heads
    for key, size in wanted.items():
        if space.max(key) != size:
            raise InputError(
                f"{key} of the checkpoint is {size}: the largest choice of the search space is {space.max(key)}"
            )
    for key, number in heads.items():
        width = getattr(args, f"{key.partition('_')[0]}_embed_dim")
        if space.qkv_dim is not None and space.qkv_dim != width:
            raise InputError(
                f"qkv_dim of the search space is {space.qkv_dim}: the checkpoint's attention is {width} wide"
            )
        if space.head_dim is not None and space.head_dim * number != width:
            raise InputError(
                f"head_dim of the search space is {space.head_dim}: the checkpoint's {number} heads are "
                f"{width // number} wide each"
            )
    if set(space.largest().cross_spans) != {1}:
        raise InputError(
            f"decoder_arbitrary_ende_attn of the search space is {list(space.decoder_arbitrary_ende_attn)}: the "
            "checkpoint attends to the last encoder layer only, so that -1 is the one choice allowed"
        )
