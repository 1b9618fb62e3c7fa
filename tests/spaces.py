"""Small search spaces of all families."""

# largest first in name only: choices are sets. Odd and pairwise different, so that a transposed axis fails.
SMALL_SPACE = {
    "encoder_embed_dim": [20, 12],
    "decoder_embed_dim": [28, 14],
    "encoder_layers": [3, 1],
    "decoder_layers": [3, 2, 1],
    "encoder_ffn_embed_dim": [33, 17],
    "encoder_attention_heads": [4, 2, 1],
    "decoder_ffn_embed_dim": [37, 19],
    "decoder_attention_heads": [4, 2],
    "decoder_ende_attention_heads": [4, 1],
    "decoder_arbitrary_ende_attn": [-1, 1, 2],
    "qkv_dim": 24,
}
HEAD_DIM_SPACE = {key: value for key, value in SMALL_SPACE.items() if key != "qkv_dim"} | {"head_dim": 5}
# every layer chooses q
ELASTIC_Q_SPACE = {key: value for key, value in SMALL_SPACE.items() if key != "qkv_dim"} | {
    "encoder_qkv_dim": [24, 12],
    "decoder_qkv_dim": [20, 8],
}
# feed-forward matrices of two factors; not every rank takes less than the matrix
RANKS = {"encoder_ffn_rank": [10, 6, 3], "decoder_ffn_rank": [15, 4]}
RANK_SPACE = SMALL_SPACE | RANKS

LM_SPACE = {
    "family": "decoder_only",
    "decoder_embed_dim": [28, 14],
    "decoder_layers": [3, 2, 1],
    "decoder_ffn_embed_dim": [37, 19],
    "decoder_attention_heads": [4, 2],
    "qkv_dim": 24,
}

# masked language models: one width, an own width for all layers, an own width for each
BERT_SPACE = {
    "family": "encoder_only",
    "encoder_embed_dim": [24, 18, 12],
    "encoder_layers": [3, 2, 1],
    "encoder_ffn_embed_dim": [37, 19],
    "encoder_attention_heads": [4, 2],
    "head_dim": 6,
}
BERT_RANK_SPACE = BERT_SPACE | {"encoder_ffn_rank": [24, 14, 6]}
FACTORISED_SPACE = BERT_SPACE | {"encoder_embed_dim": [14], "encoder_hidden_dim": [24, 18, 6]}
BOTTLENECK_SPACE = {key: value for key, value in BERT_SPACE.items() if key not in ("head_dim", "encoder_embed_dim")} | {
    "encoder_embed_dim": [24],
    "encoder_bottleneck_dim": [24, 16, 8],
}

# even sizes, of which fairseq makes models of two or four heads: for commands and processes
EVEN_SPACE = {
    "encoder_embed_dim": [24, 16],
    "decoder_embed_dim": [24, 16],
    "encoder_layers": [2],
    "decoder_layers": [2, 1],
    "encoder_ffn_embed_dim": [32, 24],
    "encoder_attention_heads": [4, 2],
    "decoder_ffn_embed_dim": [32, 24],
    "decoder_attention_heads": [4, 2],
    "decoder_ende_attention_heads": [4, 2],
    "decoder_arbitrary_ende_attn": [-1, 1],
    "qkv_dim": 16,
}
EVEN_LM_SPACE = {
    "family": "decoder_only",
    "decoder_embed_dim": [24, 16],
    "decoder_layers": [2, 1],
    "decoder_ffn_embed_dim": [32, 24],
    "decoder_attention_heads": [4, 2],
    "qkv_dim": 16,
}
EVEN_BOTTLENECK_SPACE = {
    "family": "encoder_only",
    "encoder_embed_dim": [24],
    "encoder_layers": [3, 2, 1],
    "encoder_bottleneck_dim": [24, 16],
    "encoder_ffn_embed_dim": [32, 24],
    "encoder_attention_heads": [4, 2],
}
