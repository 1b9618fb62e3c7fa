"""Common parts of the translation model's supernet and static twin as fairseq models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairseq.data import Dictionary
from fairseq.models import FairseqEncoderDecoderModel
from torch import Tensor

from mos_fairseq.command import calling_command
from mos_fairseq.errors import InputError
from mos_fairseq.models.transformer_config import TransformerBaseConfig
from mos_fairseq.models.transformer_decoder import TransformerDecoder
from mos_fairseq.models.transformer_encoder import TransformerEncoder
from mos_fairseq.models.transformer_stack import LayerKit, embedding_table
from mos_fairseq.modules import ElasticEmbedding, learn_together
from mos_fairseq.search_space import FAMILIES, Subnet


class TransformerModel(FairseqEncoderDecoderModel):
    """Encoder-decoder with fairseq's usual forward arguments."""

    family = FAMILIES["encoder_decoder"]

    def __init__(self, cfg, encoder, decoder) -> None:
        super().__init__(encoder, decoder)
        self.cfg = cfg
        self.supports_align_args = True

    @staticmethod
    def dictionaries_of(task: Any) -> tuple[Dictionary, Dictionary]:
        """Return the stacks' dictionaries."""
        return task.source_dictionary, task.target_dictionary

    @classmethod
    def build_stacks(
        cls,
        cfg: TransformerBaseConfig,
        subnet: Subnet,
        dictionaries: Sequence[Dictionary],
        kit: LayerKit,
        position_dims: Sequence[int] | None = None,
    ) -> tuple[TransformerEncoder, TransformerDecoder]:
        """Build encoder and decoder in the sizes of ``subnet``; see :meth:`TransformerStack.init_stack`."""
        encoder_stack, decoder_stack = cls.family.stacks
        inputs, prevs, outputs = _embeddings(cfg, subnet, *dictionaries)
        encoder_dim, decoder_dim = position_dims or (None, None)
        encoder = TransformerEncoder(cfg, dictionaries[0], inputs, encoder_stack, subnet, kit, encoder_dim)
        decoder = TransformerDecoder(cfg, dictionaries[1], prevs, outputs, decoder_stack, subnet, kit, decoder_dim)
        return encoder, decoder

    def prepare_for_inference_(self, cfg) -> None:
        """Prepare for inference (a hook of fairseq's commands and hub). The commands read attention only to print
        alignments; other callers may read it."""
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
        """Map src_tokens [B, S] and prev_output_tokens [B, T] to logits [B, T, V] and extras (see the decoder). With
        ``return_all_hiddens`` these also have ``encoder_states``, each encoder layer's output [S, B, d]."""
        if src_tokens.is_cuda:  # checked early: in the decoder the host would wait for the device
            asked = ((self.encoder, src_tokens), (self.decoder, prev_output_tokens))
            learn_together([(s.padding_memo, tokens, s.padding_of(tokens)) for s, tokens in asked])
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


def _embeddings(
    cfg: TransformerBaseConfig, subnet: Subnet, src_dict: Dictionary, tgt_dict: Dictionary
) -> tuple[ElasticEmbedding, ElasticEmbedding, ElasticEmbedding]:
    """Return the tables of encoder input, decoder input and output projection, which may be the same.

    A shared table has the larger side's width; the narrower side reads its first columns.
    """
    encoder_dim, decoder_dim = subnet.width("encoder"), subnet.width("decoder")
    if cfg.share_all_embeddings:
        if src_dict != tgt_dict:
            raise InputError(
                "share_all_embeddings is set but source and target dictionaries differ: "
                "preprocess with --joined-dictionary or drop --share-all-embeddings"
            )
        table = embedding_table(src_dict, max(encoder_dim, decoder_dim))
        return table, table, table
    encoder_table, decoder_table = embedding_table(src_dict, encoder_dim), embedding_table(tgt_dict, decoder_dim)
    if cfg.share_decoder_input_output_embed:
        return encoder_table, decoder_table, decoder_table
    return encoder_table, decoder_table, embedding_table(tgt_dict, decoder_dim)


def placeholder_dictionary(size: int) -> Dictionary:
    """Return a dictionary of ``size`` meaningless entries: a model depends on their number only."""
    words = Dictionary()
    for number in range(size - len(words)):
        words.add_symbol(f"placeholder{number}")
    return words
