"""Encoder shared by the supernet and the static twin."""

from __future__ import annotations

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor

from mos_fairseq.models.transformer_config import TransformerOptions
from mos_fairseq.models.transformer_stack import LayerKit, TransformerStack
from mos_fairseq.modules import ElasticEmbedding
from mos_fairseq.search_space import Stack, Subnet


class EncoderStack(TransformerStack, FairseqEncoder):
    """Common part of the Transformer encoders of all families, whose layers see the whole sentence.

    Args:
        embed_tokens: the input table.
        stack, subnet, kit, position_dim: see :meth:`TransformerStack.init_stack`.
    """

    def __init__(
        self,
        cfg: TransformerOptions,
        dictionary,
        embed_tokens: ElasticEmbedding,
        stack: Stack,
        subnet: Subnet,
        kit: LayerKit,
        position_dim: int | None = None,
    ) -> None:
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        self.embed_tokens = embed_tokens
        self.init_stack(cfg, stack, subnet, kit, position_dim)

    def padding_of(self, tokens: Tensor) -> Tensor:
        """Return where padding needs a mask: tokens [B, S] -> [B, S]."""
        return tokens.eq(self.padding_idx)

    def forward_embedding(self, tokens: Tensor) -> Tensor:
        """Embed tokens [B, S] as [B, S, d]."""
        return self.embed(tokens, lambda table, x: table(tokens, x))

    def layer_outputs(self, tokens: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Return the first layer's input and each layer's output for tokens [B, S], padded on either side.

        Each is [B, S, d] (or has the layer's own width). The second value is the padding mask [B, S], or None.
        """
        padding = self.padding_of(tokens)
        has_padding = self.padding_memo.any(tokens, padding)
        mask = ~padding[:, None, None, :] if has_padding else None
        x = self.forward_embedding(tokens)
        states = [x]
        for index, layer in enumerate(self.layers[: self.num_active_layers]):
            if self.maps is not None:
                x = self.maps.before(index, x)
            x, _ = layer(x, self_mask=mask)
            states.append(x)
        return states, padding if has_padding else None

    def max_positions(self) -> int:
        """Return the longest sentence in tokens."""
        return getattr(self.cfg, self.stack.positions)


class TransformerEncoder(EncoderStack):
    """Transformer encoder whose last outputs the decoder may read, not only the last one (HAT's cross-attention span,
    arXiv 2005.14187)."""

    def set_active_sizes(self, subnet: Subnet) -> None:
        """Set the sizes of ``subnet``, and return as many outputs as the decoder reads."""
        super().set_active_sizes(subnet)
        self.num_outputs = max(subnet.cross_spans)

    def forward(
        self, src_tokens: Tensor, src_lengths: Tensor | None = None, return_all_hiddens: bool = False
    ) -> dict[str, list[Tensor]]:
        """
        Args:
            src_tokens: [B, S], padded on either side.
            return_all_hiddens: also return every layer's output in ``encoder_states``.

        Returns:
            fairseq's dictionary of lists. ``encoder_out``: outputs of the last layers, the last layer first, each
            [S, B, d]; ``encoder_padding_mask``: [B, S], True at padding, an empty list without padding.
        """
        states, padding = self.layer_outputs(src_tokens)
        outputs = states[: -self.num_outputs - 1 : -1]
        if self.layer_norm is not None:
            # pre-norm layers leave unnormalised sums, so every output for the decoder passes the final norm
            outputs = [self.layer_norm(y) for y in outputs]
        return {
            "encoder_out": [y.transpose(0, 1) for y in outputs],
            "encoder_padding_mask": [] if padding is None else [padding],
            "encoder_embedding": [],
            "encoder_states": [y.transpose(0, 1) for y in states] if return_all_hiddens else [],
            "src_tokens": [],
            "src_lengths": [],
            "beam_size": [],
        }

    @torch.no_grad()
    def reorder_encoder_out(self, encoder_out: dict[str, list[Tensor]], new_order: Tensor) -> dict[str, list[Tensor]]:
        """Rearrange (or, before beam search, repeat) the sentences of the batch by ``new_order`` [B'].

        ``beam_size`` of the result, a tensor with one number, is the number of consecutive rows that are copies of one
        sentence. The decoder then reads each sentence once. Beam search reorders within sentences at every step, which
        then changes nothing.
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


def beam_size_of(encoder_out: dict[str, list[Tensor]]) -> int:
    """Return how many consecutive rows are copies of one sentence (see ``reorder_encoder_out``)."""
    return int(encoder_out["beam_size"][0]) if encoder_out.get("beam_size") else 1


def _repeats(sentences: Tensor) -> int:
    """Return k such that ``sentences`` [B'] holds each of its entries k times in a row; 1 if there is no such k."""
    beam = len(sentences)
    changes = (sentences[1:] != sentences[:-1]).nonzero()
    if len(changes):
        beam = int(changes[0]) + 1
    if len(sentences) % beam:
        return 1
    return beam if torch.equal(sentences, sentences[::beam].repeat_interleave(beam)) else 1
