"""``encoder_decoder``: the translation Transformer of HAT (arXiv 2005.14187).

It is the default: files of search spaces and subnets without a family have this one."""

from mos_fairseq.search_space.families.stacks import transformer_stack
from mos_fairseq.search_space.family import Attention, Dimension, Family

ENCODER_DECODER = Family(
    "encoder_decoder",
    (
        transformer_stack("encoder", "enc"),
        transformer_stack(
            "decoder",
            "dec",
            Attention(
                "encoder_attn",
                Dimension("decoder_ende_attention_heads", "cross"),
                reads="encoder",
                span=Dimension(
                    "decoder_arbitrary_ende_attn",
                    "span",
                    codes={-1: 1, 1: 2, 2: 3},  # HAT's codes
                    allowed="-1, 1 and 2 (the last 1, 2 or 3 encoder layers)",
                ),
            ),
            tokens="target",
            causal=True,
        ),
    ),
    output="decoder",
    workloads=("beam_search", "forward"),
    objectives=("loss", "bleu", "chrf"),
    # the order of the first predictor files: by stack, matrix products after depths
    term_order=(
        "encoder_layers",
        "encoder_layers*encoder_embed_dim",
        "encoder_layers*encoder_attention_heads",
        "encoder_layers*encoder_ffn_embed_dim",
        "encoder_layers*encoder_ffn_embed_dim*encoder_embed_dim",
        "decoder_layers",
        "decoder_layers*decoder_embed_dim",
        "decoder_layers*decoder_ffn_embed_dim",
        "decoder_layers*decoder_ffn_embed_dim*decoder_embed_dim",
        "decoder_layers*decoder_attention_heads",
        "decoder_layers*decoder_ende_attention_heads",
        "decoder_layers*decoder_arbitrary_ende_attn",
        "decoder_layers*decoder_arbitrary_ende_attn*encoder_embed_dim",
        "decoder_layers*decoder_arbitrary_ende_attn*decoder_ende_attention_heads",
        "encoder_layers*encoder_attention_heads*encoder_embed_dim",
        "decoder_layers*decoder_attention_heads*decoder_embed_dim",
        "decoder_layers*decoder_ende_attention_heads*decoder_embed_dim",
        "encoder_embed_dim",
        "decoder_embed_dim",
    ),
)
