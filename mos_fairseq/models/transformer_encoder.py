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
    """What Transformer encoders of all families do: layers that see the whole sentence.

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
        """Where padding needs a mask: tokens [B, S] -> [B, S]."""
        return tokens.eq(self.padding_idx)

    def forward_embedding(self, tokens: Tensor) -> Tensor:
        """tokens [B, S] -> [B, S, d]."""
        return self.embed(tokens, lambda table, x: table(tokens, x))

    def layer_outputs(self, tokens: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """tokens [B, S], padded on either side -> the input of the first layer and the output of each, [B, S, d] (or of
        the layer's own width), and where there is padding [B, S], None if there is none."""
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
        """Longest sentence in tokens."""
        return getattr(self.cfg, self.stack.positions)


class TransformerEncoder(EncoderStack):
    """Transformer encoder whose last outputs, not only the last, may be read by the decoder (HAT's cross-attention
    span, arXiv 2005.14187)."""

    def set_active_sizes(self, subnet: Subnet) -> None:
        """Run the sizes of ``subnet``, and return as many outputs as are read."""
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
            [S, B, d]; ``encoder_padding_mask``: [B, S], True at padding, an empty list if there is none.
        """
        states, padding = self.layer_outputs(src_tokens)
        outputs = states[: -self.num_outputs - 1 : -1]
        if self.layer_norm is not None:
            # pre-norm layers leave unnormalised sums: whatever the decoder reads goes through the final norm
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
