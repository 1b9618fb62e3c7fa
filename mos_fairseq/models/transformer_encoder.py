"""Encoder shared by the supernet and the static twin."""

from __future__ import annotations

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from mos_fairseq.models.transformer_config import TransformerBaseConfig, build_positions, embed_scale
from mos_fairseq.modules import Dropout, ElasticEmbedding


class TransformerEncoder(FairseqEncoder):
    """Transformer encoder whose last outputs, not only the last, may be read by the decoder (HAT's cross-attention
    span, arXiv 2005.14187).

    Args:
        embed_dim: (active) width d.
        position_dim: width of the sinusoidal table that positions are cut from: the supernet's.
        layers: all layers; the first ``num_active_layers`` run.
        norms: ``layernorm_embedding`` and the final ``layer_norm``, either may be None.
        num_outputs: how many of the last layers' outputs to return.
    """

    def __init__(
        self,
        cfg: TransformerBaseConfig,
        dictionary,
        embed_tokens: ElasticEmbedding,
        embed_dim: int,
        position_dim: int,
        layers: list[nn.Module],
        norms: tuple[nn.Module | None, nn.Module | None],
        num_outputs: int,
    ) -> None:
        super().__init__(dictionary)
        self.cfg = cfg
        self.padding_idx = dictionary.pad()
        self.embed_tokens = embed_tokens
        self.embed_dim = embed_dim
        self.max_source_positions = cfg.max_source_positions
        self.embed_positions = build_positions(cfg, "encoder", embed_dim, position_dim, self.padding_idx)
        self.layers = nn.ModuleList(layers)
        self.layernorm_embedding, self.layer_norm = norms
        self.num_active_layers = len(layers)
        self.num_outputs = num_outputs
        self.dropout_module = Dropout(cfg.dropout, module_name=self.__class__.__name__)

    def forward_embedding(self, tokens: Tensor) -> Tensor:
        """tokens [B, S] -> scaled embeddings with positions, normalised, dropped out [B, S, d]."""
        x = embed_scale(self.cfg, self.embed_dim) * self.embed_tokens(tokens, self.embed_dim)
        if self.embed_positions is not None:
            x = x + self.embed_positions(tokens, x)
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        return self.dropout_module(x)

    def forward(
        self, src_tokens: Tensor, src_lengths: Tensor | None = None, return_all_hiddens: bool = False
    ) -> dict[str, list[Tensor]]:
        """
        Args:
            src_tokens: [B, S], padded on either side.
            return_all_hiddens: also return every layer's output in ``encoder_states``.

        Returns:
            fairseq's dictionary of lists. ``encoder_out``: outputs of the last layers, the last layer first, each
            [S, B, d]; ``encoder_padding_mask``: [B, S], True at padding, an empty list if there is none.
        """
        padding = src_tokens.eq(self.padding_idx)
        has_padding = bool(padding.any())
        mask = ~padding[:, None, None, :] if has_padding else None
        x = self.forward_embedding(src_tokens)
        states = [x]
        for layer in self.layers[: self.num_active_layers]:
            x = layer(x, mask)
            states.append(x)
        outputs = states[: -self.num_outputs - 1 : -1]
        if self.layer_norm is not None:
            # pre-norm layers leave unnormalised sums: whatever the decoder reads goes through the final norm
            outputs = [self.layer_norm(y) for y in outputs]
        return {
            "encoder_out": [y.transpose(0, 1) for y in outputs],
            "encoder_padding_mask": [padding] if has_padding else [],
            "encoder_embedding": [],
            "encoder_states": [y.transpose(0, 1) for y in states] if return_all_hiddens else [],
            "src_tokens": [],
            "src_lengths": [],
            "beam_size": [],
        }

    @torch.no_grad()
    def reorder_encoder_out(self, encoder_out: dict[str, list[Tensor]], new_order: Tensor) -> dict[str, list[Tensor]]:
        """Rearrange (or, before beam search, repeat) the sentences of the batch by ``new_order`` [B'].

        ``beam_size`` of the result, one number in a tensor, tells how many consecutive rows are copies of one sentence.
        Then the decoder reads each sentence once; and an order within the sentences, as beam search gives at every
        step, changes nothing.
        """
        old_beam = beam_size_of(encoder_out)
        sentences = new_order // old_beam
        rows = encoder_out["encoder_out"][0].size(1)
        if old_beam > 1 and torch.equal(sentences, torch.arange(rows, device=new_order.device) // old_beam):
            return encoder_out
        beam = _repeats(sentences)
        batch_axis = {"encoder_out": 1, "encoder_states": 1}
        reordered = {
            name: [y.index_select(batch_axis.get(name, 0), new_order) for y in tensors]
            for name, tensors in encoder_out.items()
            if name != "beam_size"
        }
        return reordered | {"beam_size": [torch.tensor(beam)]}

    def max_positions(self) -> int:
        """Longest source sentence in tokens."""
        return self.max_source_positions



def beam_size_of(encoder_out: dict[str, list[Tensor]]) -> int:
    """How many consecutive rows are copies of one sentence (see ``reorder_encoder_out``)."""
    return int(encoder_out["beam_size"][0]) if encoder_out.get("beam_size") else 1


def _repeats(sentences: Tensor) -> int:
    """The number k such that ``sentences`` [B'] holds each of its entries k times in a row (1: no such number)."""
    beam = len(sentences)
    changes = (sentences[1:] != sentences[:-1]).nonzero()
    if len(changes):
        beam = int(changes[0]) + 1
    if len(sentences) % beam:
        return 1
    return beam if torch.equal(sentences, sentences[::beam].repeat_interleave(beam)) else 1
