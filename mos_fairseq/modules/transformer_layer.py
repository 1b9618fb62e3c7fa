"""Transformer layers over given linears and norms: the static twin uses them as they are, the supernet's elastic
layers (:mod:`mos_fairseq.modules.elastic_transformer_layer`) extend them, so both compute the same thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mos_fairseq.modules.activation import activation_function
from mos_fairseq.modules.derived import KeepsDerived
from mos_fairseq.modules.dropout import Dropout
from mos_fairseq.modules.multihead_attention import MultiheadAttention


@dataclass(frozen=True)
class LayerOptions:
    """What a layer needs besides its sizes; names as fairseq's options."""

    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    activation_fn: str = "relu"
    normalize_before: bool = False
    layer_norm_eps: float = 1e-5
    stock_name: str = "TransformerEncoderLayer"  # fairseq's class, by which retain_dropout_modules names its dropout


class TransformerLayer(KeepsDerived):
    """Self-attention, cross-attention where there is one, and feed-forward sublayers, each with a residual connection.

    Args:
        attentions: ``self_attn``, and ``encoder_attn`` in a decoder that reads an encoder.
        fc1, fc2: d -> f and f -> d.
        norms: one for each attention, in their order, and the feed-forward sublayer's.
    """

    def __init__(
        self,
        attentions: Mapping[str, MultiheadAttention],
        fc1: nn.Module,
        fc2: nn.Module,
        norms: Sequence[nn.Module],
        options: LayerOptions,
    ) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2
        self.options = options
        self.activation_fn = activation_function(options.activation_fn)
        self.dropout_module = Dropout(options.dropout, module_name=options.stock_name)
        self.activation_dropout_module = Dropout(options.activation_dropout, module_name=options.stock_name)
        self.encoder_attn: MultiheadAttention | None = None
        for name, attention in attentions.items():
            setattr(self, name, attention)
        *attention_norms, final = norms
        for name, norm in zip(attentions, attention_norms, strict=True):
            setattr(self, f"{name}_layer_norm", norm)
        self.final_layer_norm = final

    @property
    def attentions(self) -> list[MultiheadAttention]:
        """Its attentions, in the order of the forward pass."""
        return [self.self_attn] if self.encoder_attn is None else [self.self_attn, self.encoder_attn]

    def forward(
        self,
        x: Tensor,
        self_mask: Tensor | None = None,
        is_causal: bool = False,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        incremental_state: dict | None = None,
    ) -> tuple[Tensor, Callable[[], Tensor] | None]:
        """
        Args:
            x: [B, T, d].
            self_mask: True where self-attention is allowed, broadcastable to [B, 1, T, T]; None without padding.
            is_causal: self-attention reads no later positions; not together with a mask.
            memory: outputs that cross-attention reads [B, S', d_memory], concatenated along time.
            memory_mask: True for its real tokens, [B, 1, 1, S']; None without padding.
            incremental_state: fairseq's cache; then x is the last position.

        Returns:
            output [B, T, d], and a function that computes the cross-attention probabilities [B, h, T, S']; None without
            cross-attention.
        """
        probabilities = None

        def self_attention(y: Tensor) -> Tensor:
            y, _ = self.self_attn(y, mask=self_mask, is_causal=is_causal, incremental_state=incremental_state)
            return self.dropout_module(y)

        x = self._sublayer(x, self.self_attn_layer_norm, self_attention)
        encoder_attn = self.encoder_attn
        if encoder_attn is not None:

            def cross_attention(y: Tensor) -> Tensor:
                nonlocal probabilities
                y, probabilities = encoder_attn(y, memory, mask=memory_mask, incremental_state=incremental_state)
                return self.dropout_module(y)

            x = self._sublayer(x, self.encoder_attn_layer_norm, cross_attention)
        x = self._sublayer(x, self.final_layer_norm, self._feed_forward)
        self.forget_when_trained(x)
        return x, probabilities

    def _feed_forward(self, x: Tensor) -> Tensor:
        x = self.activation_dropout_module(self.activation_fn(self.fc1(x)))
        return self.dropout_module(self.fc2(x))

    def _sublayer(self, x: Tensor, norm: nn.Module, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Residual connection around ``function`` with the norm before (pre-norm) or after it (post-norm)."""
        if self.options.normalize_before:
            return x + function(norm(x))
        return norm(x + function(x))
