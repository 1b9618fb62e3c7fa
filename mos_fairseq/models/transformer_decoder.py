"""Decoder shared by the supernet and the static twin."""

from __future__ import annotations

import torch
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from mos_fairseq.models.transformer_config import TransformerBaseConfig, build_positions, embed_scale
from mos_fairseq.models.transformer_encoder import beam_size_of
from mos_fairseq.modules import Dropout, ElasticEmbedding


class TransformerDecoder(FairseqIncrementalDecoder):
    """Transformer decoder whose layers attend to the outputs of the last one, two or three encoder layers.

    Args:
        embed_tokens, output_embedding: input table and the table that projects to the vocabulary (often the same).
        embed_dim: (active) width d.
        position_dim: width of the sinusoidal table that positions are cut from: the supernet's.
        layers: all layers; the first ``num_active_layers`` run.
        norms: ``layernorm_embedding`` and the final ``layer_norm``, either may be None.
        cross_spans: for each (active) layer, how many encoder outputs it attends to.
    """

    def __init__(
        self,
        cfg: TransformerBaseConfig,
        dictionary,
        embed_tokens: ElasticEmbedding,
        output_embedding: ElasticEmbedding,
        embed_dim: int,
        position_dim: int,
        layers: list[nn.Module],
        norms: tuple[nn.Module | None, nn.Module | None],
        cross_spans: tuple[int, ...],
    ) -> None:
        super().__init__(dictionary)
        self.cfg = cfg
        self.padding_idx = dictionary.pad()
        self.embed_tokens, self.output_embedding = embed_tokens, output_embedding
        self.embed_dim = embed_dim
        self.max_target_positions = cfg.max_target_positions
        self.embed_positions = build_positions(cfg, "decoder", embed_dim, position_dim, self.padding_idx)
        self.layers = nn.ModuleList(layers)
        self.layernorm_embedding, self.layer_norm = norms
        self.num_active_layers = len(layers)
        self.cross_spans = cross_spans
        self.need_attn = False
        self.dropout_module = Dropout(cfg.dropout, module_name=self.__class__.__name__)

    def make_generation_fast_(self, need_attn: bool | None = None, **kwargs) -> None:
        """fairseq's hook before generation; ``need_attn``: return attention at every step (alignments)."""
        self.need_attn = bool(need_attn)

    def forward_embedding(self, tokens: Tensor, incremental_state: dict | None) -> Tensor:
        """tokens [B, T] -> [B, T, d], or [B, 1, d] for the last token in incremental decoding."""
        num_tokens = tokens.size(1)
        if incremental_state is not None:
            tokens = tokens[:, -1:]
        x = embed_scale(self.cfg, self.embed_dim) * self.embed_tokens(tokens, self.embed_dim)
        if self.embed_positions is not None:
            step = incremental_state is not None
            x = x + (self.embed_positions.step(num_tokens, x) if step else self.embed_positions(tokens, x))
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        return self.dropout_module(x)

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
            encoder_out: of :class:`TransformerEncoder`.
            incremental_state: fairseq's cache; then only the last token is decoded.
            alignment_layer, alignment_heads: return this layer's attention, averaged over the first heads.

        Returns:
            logits [B, T, V] (features [B, T, d] with ``features_only``), and a dictionary with ``attn``, a list of
            one tensor [B, T, S] or None, and ``inner_states``, each layer's output [T, B, d].
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
        encoder_out: dict[str, list[Tensor]],
        incremental_state: dict | None = None,
        full_context_alignment: bool = False,
        alignment_layer: int | None = None,
        alignment_heads: int | None = None,
    ) -> tuple[Tensor, dict]:
        """As :meth:`forward` up to the output projection."""
        num_layers = self.num_active_layers
        need_attn = self.need_attn or alignment_layer is not None or alignment_heads is not None
        alignment_layer = num_layers - 1 if alignment_layer is None else alignment_layer
        self_mask = None if incremental_state is not None else self._left_padding_mask(prev_output_tokens)
        is_causal = not full_context_alignment and incremental_state is None
        if self_mask is not None and is_causal:
            self_mask, is_causal = self_mask & torch.ones_like(self_mask[0, 0]).tril(), False
        x = self.forward_embedding(prev_output_tokens, incremental_state)
        memories = self._memories(encoder_out, incremental_state)
        attn: Tensor | None = None
        inner_states = [x.transpose(0, 1)]
        for index, (layer, span) in enumerate(zip(self.layers[:num_layers], self.cross_spans, strict=True)):
            memory, memory_mask = memories[span]
            x, weights = layer(
                x,
                memory,
                memory_mask,
                self_mask=self_mask,
                is_causal=is_causal,
                incremental_state=incremental_state,
                need_weights=need_attn and index == alignment_layer,
            )
            inner_states.append(x.transpose(0, 1))
            if weights is not None:
                # a source token's weight is the sum over the encoder layers attended to
                attn = weights[:, :alignment_heads].unflatten(-1, (span, -1)).sum(-2).mean(1)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return x, {"attn": [attn], "inner_states": inner_states}

    def _left_padding_mask(self, tokens: Tensor) -> Tensor | None:
        """True where a key may be read, [B, 1, T, T]; None unless a sentence is padded on the left.

        Padding on the right needs no mask: causal attention never reaches it from a real token.
        """
        padding = tokens.eq(self.padding_idx)
        if not bool(padding[:, 0].any()):
            return None
        # a padding position reads itself, since a row with nothing to read would be NaN
        return ~padding[:, None, None, :] | torch.eye(tokens.size(1), dtype=torch.bool, device=tokens.device)

    def _memories(
        self, encoder_out: dict[str, list[Tensor]], incremental_state: dict | None
    ) -> dict[int, tuple[Tensor | None, Tensor | None]]:
        """For each span in use: outputs of that many encoder layers along time [B, span*S, d], and their mask, which
        repeats with them. (None, None) where the layers have cached what they read.

        In incremental decoding B counts sentences, not the beams that ``reorder_encoder_out`` made of each.
        """
        if incremental_state is not None and self.layers[0].encoder_attn.cache(incremental_state) is not None:
            return dict.fromkeys(self.cross_spans, (None, None))
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
        attentions = [a for y in self.layers[: self.num_active_layers] for a in (y.self_attn, y.encoder_attn)]
        caches = [a.cache(incremental_state) for a in attentions]
        if caches[0] is not None and torch.equal(
            new_order, torch.arange(caches[0]["kv"].size(1), device=new_order.device)
        ):
            return
        for attention in attentions:
            attention.reorder_incremental_state(incremental_state, new_order)

    def output_layer(self, features: Tensor) -> Tensor:
        """features [..., d] -> logits [..., V]."""
        return self.output_embedding.project(features)

    def max_positions(self) -> int:
        """Longest target sentence in tokens."""
        return self.max_target_positions
