"""Decoder shared by the supernet and the static twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor

from mos_fairseq.models.transformer_config import TransformerOptions
from mos_fairseq.models.transformer_encoder import beam_size_of
from mos_fairseq.models.transformer_stack import LayerKit, TransformerStack
from mos_fairseq.modules import ElasticEmbedding
from mos_fairseq.search_space import Stack, Subnet


class CrossAttention(Sequence):
    """The decoder's ``attn``: a sequence of one tensor [B, T, S], attention to the source, computed on first access.

    fairseq's decoder always computes it, but most callers do not read it. Alignments use it, and the criterion of
    ``--load-alignments`` trains it.

    Args:
        probabilities: computes [B, h, T, span * S].
        span: number of encoder layers attended to; a source token's weight is the sum over them.
        num_heads: average of this many heads, the first ones (default: all).
    """

    def __init__(self, probabilities: Callable[[], Tensor], span: int, num_heads: int | None) -> None:
        self._probabilities, self._span, self._num_heads = probabilities, span, num_heads
        self._weights: list[Tensor] = []

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index):
        if not self._weights:
            heads = self._probabilities()[:, : self._num_heads]
            self._weights.append(heads.unflatten(-1, (self._span, -1)).sum(-2).mean(1))
        return self._weights[index]


class TransformerDecoder(TransformerStack, FairseqIncrementalDecoder):
    """Transformer decoder whose layers attend to the last one, two or three encoder outputs, or to none.

    Args:
        embed_tokens, output_embedding: the input table, and the table of the output projection (often the same).
        stack, subnet, kit, position_dim: see :meth:`TransformerStack.init_stack`.
    """

    def __init__(
        self,
        cfg: TransformerOptions,
        dictionary,
        embed_tokens: ElasticEmbedding,
        output_embedding: ElasticEmbedding,
        stack: Stack,
        subnet: Subnet,
        kit: LayerKit,
        position_dim: int | None = None,
    ) -> None:
        super().__init__(dictionary)
        self.padding_idx = dictionary.pad()
        self.embed_tokens, self.output_embedding = embed_tokens, output_embedding
        self.max_target_positions = cfg.max_target_positions
        # whether search, which reads attention at every step, gets it; other callers always do
        self.need_attn = True
        self.init_stack(cfg, stack, subnet, kit, position_dim)

    def set_active_sizes(self, subnet: Subnet) -> None:
        """Set the sizes of ``subnet``. ``cross_spans``: number of encoder outputs that each layer reads, if any."""
        super().set_active_sizes(subnet)
        self.cross_spans = subnet.cross_spans

    def forward_embedding(self, tokens: Tensor, incremental_state: dict | None) -> Tensor:
        """Embed tokens [B, T] as [B, T, d], or in incremental decoding the last token as [B, 1, d]."""
        if incremental_state is None:
            return self.embed(tokens, lambda table, x: table(tokens, x))
        return self.embed(tokens[:, -1:], lambda table, x: table.step(tokens.size(1), x))

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, list[Tensor]] | None = None,
        incremental_state: dict | None = None,
        features_only: bool = False,
        full_context_alignment: bool = False,
        alignment_layer: int | None = None,
        alignment_heads: int | None = None,
        src_lengths: Tensor | None = None,
        return_all_hiddens: bool = False,
    ) -> tuple[Tensor, dict]:
        """
        Args:
            prev_output_tokens: [B, T].
            encoder_out: output of :class:`TransformerEncoder`; None without an encoder.
            incremental_state: fairseq's cache; with it, only the last token is decoded.
            full_context_alignment: let a position also read later positions.
            alignment_layer, alignment_heads: return this layer's attention, averaged over the first heads (default: the
                last layer, averaged over all heads).

        Returns:
            logits [B, T, V] (features [B, T, d] with ``features_only``), and a dictionary with ``attn``, a sequence of
            one tensor [B, T, S] computed on access (in incremental decoding without ``need_attn``: of None), and
            ``inner_states``, each layer's output [T, B, d].
        """
        x, extra = self.extract_features(
            prev_output_tokens,
            encoder_out,
            incremental_state,
            full_context_alignment,
            alignment_layer,
            alignment_heads,
        )
        return (x if features_only else self.output_layer(x)), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, list[Tensor]] | None,
        incremental_state: dict | None = None,
        full_context_alignment: bool = False,
        alignment_layer: int | None = None,
        alignment_heads: int | None = None,
    ) -> tuple[Tensor, dict]:
        """Compute :meth:`forward` up to the output projection."""
        num_layers = self.num_active_layers
        alignment_layer = num_layers - 1 if alignment_layer is None else alignment_layer
        self_mask, is_causal = None, False
        if incremental_state is None:
            self_mask, is_causal = self._self_attention_mask(prev_output_tokens, full_context_alignment)
        x = self.forward_embedding(prev_output_tokens, incremental_state)
        memories = self._memories(encoder_out, incremental_state)
        attn: Sequence[Tensor | None] = [None]
        inner_states = [x.transpose(0, 1)]
        spans = self.cross_spans or (0,) * num_layers
        for index, (layer, span) in enumerate(zip(self.layers[:num_layers], spans, strict=True)):
            memory, memory_mask = memories[span]
            x, probabilities = layer(
                x,
                self_mask=self_mask,
                is_causal=is_causal,
                memory=memory,
                memory_mask=memory_mask,
                incremental_state=incremental_state,
            )
            inner_states.append(x.transpose(0, 1))
            if probabilities is not None and index == alignment_layer and (self.need_attn or incremental_state is None):
                attn = CrossAttention(probabilities, span, alignment_heads)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return x, {"attn": attn, "inner_states": inner_states}

    def padding_of(self, tokens: Tensor) -> Tensor:
        """Return where padding needs a mask in causal attention: tokens [B, T] -> [B], the first column."""
        return tokens[:, 0].eq(self.padding_idx)

    def _self_attention_mask(self, tokens: Tensor, full_context: bool) -> tuple[Tensor | None, bool]:
        """Return (mask, is_causal) for self-attention. The mask [B, 1, 1 or T, T] is True where a key may be read, and
        None if no padding is in reach. In causal attention a real token never reaches padding on its right."""
        padding = tokens.eq(self.padding_idx)
        in_reach = bool(padding.any()) if full_context else self.padding_memo.any(tokens, padding[:, 0])
        if not in_reach:
            return None, not full_context
        real = ~padding[:, None, None, :]
        if full_context:
            return real, False
        # a padding position reads itself, since a row without any key would become NaN
        allowed = real | torch.eye(tokens.size(1), dtype=torch.bool, device=tokens.device)
        return allowed & torch.ones_like(allowed[0, 0]).tril(), False

    def _memories(
        self, encoder_out: dict[str, list[Tensor]] | None, incremental_state: dict | None
    ) -> dict[int, tuple[Tensor | None, Tensor | None]]:
        """Return, for each span in use, the outputs of that many encoder layers along time [B, span*S, d], and their
        mask, repeated likewise. The entries are (None, None) if the layers have cached keys and values.

        In incremental decoding, B is the number of sentences, not of the beams made by ``reorder_encoder_out``.
        """
        if not self.cross_spans:
            return {0: (None, None)}
        if incremental_state is not None and self.layers[0].encoder_attn.cache(incremental_state) is not None:
            return dict.fromkeys(self.cross_spans, (None, None))
        if encoder_out is None:
            raise RuntimeError("encoder_out is None: the layers read the encoder's outputs")
        beam = 1 if incremental_state is None else beam_size_of(encoder_out)
        padding = encoder_out["encoder_padding_mask"]
        memories = {}
        for span in set(self.cross_spans):
            outputs = [y[:, ::beam] for y in encoder_out["encoder_out"][:span]]
            memory = (outputs[0] if span == 1 else torch.cat(outputs)).transpose(0, 1)
            mask = ~padding[0][::beam].repeat(1, span)[:, None, None, :] if padding else None
            memories[span] = memory, mask
        return memories

    @torch.no_grad()
    def reorder_incremental_state_scripting(self, incremental_state: dict, new_order: Tensor) -> None:
        """Reorder every cache to the beam's new order [B'] (fairseq's hook, called at every step)."""
        attentions = [a for layer in self.layers[: self.num_active_layers] for a in layer.attentions]
        caches = [a.cache(incremental_state) for a in attentions]
        # on a GPU the host would wait for the comparison, and a copy is cheaper
        if (
            caches[0] is not None
            and new_order.is_cpu
            and torch.equal(new_order, torch.arange(caches[0]["kv"].size(1), device=new_order.device))
        ):
            return
        for attention in attentions:
            attention.reorder_incremental_state(incremental_state, new_order)

    def output_layer(self, features: Tensor) -> Tensor:
        """Project features [..., d] to logits [..., V]."""
        return self.output_embedding.project(features)

    def max_positions(self) -> int:
        """Return the longest target sentence in tokens."""
        return self.max_target_positions
