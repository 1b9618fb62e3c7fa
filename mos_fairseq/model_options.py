"""Options of models, named as fairseq names them, for models, cost, latency and warm start. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

FLAGS = {
    "share_all_embeddings": "one table for encoder, decoder and output projection (needs a joined dictionary)",
    "share_decoder_input_output_embed": "one table for decoder and output projection",
    "untie_weights_roberta": "two tables for encoder and output projection",
    "encoder_normalize_before": "pre-norm encoder, with one layer norm more",
    "decoder_normalize_before": "pre-norm decoder, with one layer norm more",
    "layernorm_embedding": "layer norms on the embeddings",
    "encoder_learned_pos": "learned positions in the encoder",
    "decoder_learned_pos": "learned positions in the decoder",
    "no_token_positional_embeddings": "no position embeddings",
    "no_scale_embedding": "do not multiply embeddings by the square root of their width",
}
"""What is on or off in a model, and off by default; with its help."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What both parameters and latency of a model depend on, besides its sizes and dictionaries."""

    share_all_embeddings: bool = False
    share_decoder_input_output_embed: bool = False
    untie_weights_roberta: bool = False
    encoder_normalize_before: bool = False
    decoder_normalize_before: bool = False
    layernorm_embedding: bool = False

    @classmethod
    def values_of(cls, cfg: Any) -> dict[str, bool]:
        """Those that a model's configuration has, by name: a family's models need not have all."""
        names = (option.name for option in fields(ModelOptions))
        return {name: getattr(cfg, name) for name in names if hasattr(cfg, name)}
