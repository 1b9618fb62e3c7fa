"""What the supernet and the static twin have in common as fairseq models."""

from __future__ import annotations

from fairseq.data import Dictionary
from fairseq.models import FairseqEncoderDecoderModel
from torch import Tensor

from mos_fairseq.command import calling_command


class TransformerModel(FairseqEncoderDecoderModel):
    """Encoder-decoder with fairseq's usual forward arguments."""

    def __init__(self, cfg, encoder, decoder) -> None:
        super().__init__(encoder, decoder)
        self.cfg = cfg
        self.supports_align_args = True

    def prepare_for_inference_(self, cfg) -> None:
        """fairseq's hook of its commands and of the hub. The commands print attention as alignments or not at all;
        whoever else generates may read it."""
        super().prepare_for_inference_(cfg)
        if calling_command() is not None:
            self.decoder.need_attn = bool(getattr(cfg.generation, "print_alignment", None))

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        prev_output_tokens: Tensor,
        return_all_hiddens: bool = False,
        features_only: bool = False,
        alignment_layer: int | None = None,
        alignment_heads: int | None = None,
    ) -> tuple[Tensor, dict]:
        """src_tokens [B, S], prev_output_tokens [B, T] -> logits [B, T, V] and extras (see the decoder); with
        ``return_all_hiddens`` these have ``encoder_states`` too, each encoder layer's output [S, B, d]."""
        encoder_out = self.encoder(src_tokens, src_lengths=src_lengths, return_all_hiddens=return_all_hiddens)
        x, extra = self.decoder(
            prev_output_tokens,
            encoder_out=encoder_out,
            features_only=features_only,
            alignment_layer=alignment_layer,
            alignment_heads=alignment_heads,
        )
        if return_all_hiddens:
            extra["encoder_states"] = encoder_out["encoder_states"]
        return x, extra


def placeholder_dictionary(size: int) -> Dictionary:
    """A dictionary of ``size`` entries without meaning: a model depends on their number only."""
    words = Dictionary()
    for number in range(size - len(words)):
        words.add_symbol(f"placeholder{number}")
    return words
