"""The stack of all Transformers."""

from dataclasses import replace
from typing import Any

from mos_fairseq.search_space.family import Attention, Dimension, FeedForward, Stack


def transformer_stack(name: str, label: str, *more: Attention, **properties: Any) -> Stack:
    """Return a stack of Transformer layers: a feed-forward network, self-attention and ``more`` attention.

    Its keys are fairseq's option names: ``NAME_embed_dim``, ``NAME_layers``, ``NAME_ffn_embed_dim`` and
    ``NAME_attention_heads``. Two are optional: ``NAME_qkv_dim``, one value for all attention of a layer, and
    ``NAME_ffn_rank``.

    Args:
        name, label, properties: see :class:`Stack`.
        more: attention beside self-attention; its ``inner`` is replaced by the layer's.
    """
    inner = Dimension(f"{name}_qkv_dim", "qkv", optional=True)
    blocks: tuple[FeedForward | Attention, ...] = (
        FeedForward(
            Dimension(f"{name}_ffn_embed_dim", "ffn"), rank=Dimension(f"{name}_ffn_rank", "rank", optional=True)
        ),
        Attention("self_attn", Dimension(f"{name}_attention_heads", "heads")),
        *more,
    )
    return Stack(
        name,
        label,
        Dimension(f"{name}_embed_dim"),
        Dimension(f"{name}_layers", most=1000),
        tuple(replace(block, inner=inner) if isinstance(block, Attention) else block for block in blocks),
        **properties,
    )
