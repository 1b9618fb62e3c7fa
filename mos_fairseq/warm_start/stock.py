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

from mos_fairseq.checkpoints import read_checkpoint
from mos_fairseq.errors import InputError
from mos_fairseq.export.stock_sizes import StockSizes, option_names
from mos_fairseq.models import placeholder_dictionary
from mos_fairseq.search_space import SearchSpace, Stack, check_family
from mos_fairseq.tasks.translation_config import check_data
from mos_fairseq.warm_start.family import FAMILY

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
EMBEDDING_FILES = tuple(f"{stack.name}_embed_path" for stack in FAMILY.stacks)
"""Options that name files of pre-trained embeddings."""


@dataclass(frozen=True)
class StockModel:
    """A checkpoint of fairseq's ``transformer``: its content with ``cfg`` as plain containers, its options, and the
    model in eval mode, whose dictionaries have the right sizes but no words."""

    state: dict[str, Any]
    args: Namespace
    model: TransformerModel


def check_pairs(source: StockModel, data: str) -> None:
    """Raise InputError if a data folder is missing, or the first has no sentence pairs of the model's languages."""
    task = source.state["cfg"]["task"]
    check_data(Namespace(data=data, **{name: task.get(name) for name in ("source_lang", "target_lang")}))


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
    names = [name for stack in FAMILY.stacks for name in option_names(stack)]
    if ARCH_MODEL_NAME_REGISTRY.get(arch) != "transformer" or not hasattr(args, names[0]):
        raise InputError(f"checkpoint {path}: its arch is {arch}, but a warm start is from fairseq's transformer")
    base_architecture(args)
    _check_options(args)
    for name in EMBEDDING_FILES:  # whose vectors the weights replace, and which may be gone
        setattr(args, name, None)
    try:
        sizes = [len(weights[f"{stack.name}.embed_tokens.weight"]) for stack in FAMILY.stacks]
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
    width = FAMILY.stack(FAMILY.output).width.key
    for name in ("decoder_input_dim", "decoder_output_dim"):
        if getattr(args, name) != getattr(args, width):
            raise InputError(
                f"{name} is {getattr(args, name)} in the checkpoint: supernets need {width}, {getattr(args, width)}"
            )
    if getattr(args, "activation_fn", None) == "swish":
        raise InputError("activation_fn is swish in the checkpoint: stock fairseq's does not run")


def check_space(args: Namespace, space: SearchSpace) -> None:
    """Raise InputError unless the largest subnet of ``space`` has the sizes of the model with the options ``args``."""
    check_family("mos-warm-start", [FAMILY.name], "the search space", space.family)
    for stack in FAMILY.stacks:
        sizes = StockSizes.from_options(vars(args), stack)
        wanted = {stack.width.key: sizes.width, stack.depth.key: sizes.layers, stack.feed_forward.size.key: sizes.ffn}
        wanted |= {attention.heads.key: sizes.heads for attention in stack.attentions}
        for key, size in wanted.items():
            if space.max(key) != size:
                raise InputError(
                    f"{key} of the checkpoint is {size}: the largest choice of the search space is {space.max(key)}"
                )
        _check_inner(space, stack, sizes)
    for key, read in FAMILY.read_by_span.items():
        if set(space.largest().cross_spans) != {1}:
            raise InputError(
                f"{key} of the search space is {list(space[key])}: the checkpoint attends to the last {read.name} "
                "layer only, so that -1 is the one choice allowed"
            )


def _check_inner(space: SearchSpace, stack: Stack, sizes: StockSizes) -> None:
    """Raise InputError unless the largest q of a stack's attentions is the stack's width."""
    for block in stack.attentions:
        inner = space.largest().layers(stack.name)[0].attentions[block.name].inner
        if inner == sizes.width:
            continue
        if block.inner is not None and block.inner.key in space.values:
            raise InputError(
                f"{block.inner.key} of the search space is {inner} at most: the checkpoint's attention is "
                f"{sizes.width} wide"
            )
        fixed, per_head = FAMILY.constants
        if fixed in space.values:
            raise InputError(
                f"{fixed} of the search space is {space[fixed]}: the checkpoint's attention is {sizes.width} wide"
            )
        raise InputError(
            f"{per_head} of the search space is {space[per_head]}: the checkpoint's {sizes.heads} heads are "
            f"{sizes.width // sizes.heads} wide each"
        )
