"""``decoder_only``: a causal language model, fairseq's ``transformer_lm``."""

from mos_fairseq.search_space.family import Attention, Dimension, Family, FeedForward, Stack

DECODER_ONLY = Family(
    "decoder_only",
    (
        Stack(
            "decoder",
            "dec",
            Dimension("decoder_embed_dim"),
            Dimension("decoder_layers", most=1000),
            (
                FeedForward(Dimension("decoder_ffn_embed_dim", "ffn")),
                Attention(
                    "self_attn",
                    Dimension("decoder_attention_heads", "heads"),
                    inner=Dimension("decoder_qkv_dim", "qkv", optional=True),
                ),
            ),
            tokens="target",
            causal=True,
            normalize_before=True,  # as fairseq's transformer_lm_gpt and _big: training is not stable without
        ),
    ),
    output="decoder",
    workloads=("generate", "forward"),
)
