"""Transformer layers over given linears and norms: the static twin uses them as they are, the supernet's elastic
layers (:mod:`mos_fairseq.modules.elastic_transformer_layer`) extend them, so both compute the same thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fairseq import utils
from torch import Tensor, nn

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


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    function = utils.get_activation_fn(name)
    return function() if isinstance(function, type) else function  # for "swish" fairseq gives a class


class _TransformerLayer(KeepsDerived):
    def __init__(self, fc1: nn.Module, fc2: nn.Module, options: LayerOptions) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2
        self.options = options
        self.activation_fn = _activation(options.activation_fn)
        self.dropout_module = Dropout(options.dropout, module_name=self.__class__.__name__)
        self.activation_dropout_module = Dropout(
            options.activation_dropout, module_name=self.__class__.__name__
        )

    def _feed_forward(self, x: Tensor) -> Tensor:
        x = self.activation_dropout_module(self.activation_fn(self.fc1(x)))
        return self.dropout_module(self.fc2(x))

    def _sublayer(self, x: Tensor, norm: nn.Module, function) -> Tensor:
        """Residual connection around ``function`` with the norm before (pre-norm) or after it (post-norm)."""
        if self.options.normalize_before:
            return x + function(norm(x))
        return norm(x + function(x))


class TransformerEncoderLayer(_TransformerLayer):
    """Self-attention and feed-forward sublayers, x [B, S, d] -> [B, S, d]."""

    def __init__(
        self,
        self_attn: MultiheadAttention,
        fc1: nn.Module,
        fc2: nn.Module,
        norms: list[nn.Module],
        options: LayerOptions,
    ) -> None:
        super().__init__(fc1, fc2, options)
        self.self_attn = self_attn
        self.self_attn_layer_norm, self.final_layer_norm = norms

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask``: True for real tokens, [B, 1, 1, S]; None without padding."""
        x = self._sublayer(
            x, self.self_attn_layer_norm, lambda y: self.dropout_module(self.self_attn(y, mask=mask)[0])
        )
        x = self._sublayer(x, self.final_layer_norm, self._feed_forward)
        self.forget_when_trained(x)
        return x


class TransformerDecoderLayer(_TransformerLayer):
    """Causal self-attention, cross-attention and feed-forward sublayers, x [B, T, d] -> [B, T, d]."""

    def __init__(
        self,
        self_attn: MultiheadAttention,
        encoder_attn: MultiheadAttention,
        fc1: nn.Module,
        fc2: nn.Module,
        norms: list[nn.Module],
        options: LayerOptions,
    ) -> None:
        super().__init__(fc1, fc2, options)
        self.self_attn, self.encoder_attn = self_attn, encoder_attn
        self.self_attn_layer_norm, self.encoder_attn_layer_norm, self.final_layer_norm = norms

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        self_mask: Tensor | None = None,
        is_causal: bool = True,
        incremental_state: dict | None = None,
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        """
        Args:
            memory: encoder outputs this layer attends to [B, S', d_encoder], layers concatenated along time.
            memory_mask: True for real tokens, [B, 1, 1, S']; None without padding.
            self_mask: True where self-attention is allowed; None for the plain causal mask of ``is_causal``.

        Returns:
            output, and a function that computes the cross-attention probabilities [B, h, T, S'].
        """
        probabilities = None

        def cross_attention(y: Tensor) -> Tensor:
            nonlocal probabilities
            y, probabilities = self.encoder_attn(y, memory, mask=memory_mask, incremental_state=incremental_state)
            return self.dropout_module(y)

        def self_attention(y: Tensor) -> Tensor:
            y, _ = self.self_attn(y, mask=self_mask, is_causal=is_causal, incremental_state=incremental_state)
            return self.dropout_module(y)

        x = self._sublayer(x, self.self_attn_layer_norm, self_attention)
        x = self._sublayer(x, self.encoder_attn_layer_norm, cross_attention)
        x = self._sublayer(x, self.final_layer_norm, self._feed_forward)
        self.forget_when_trained(x)
        return x, probabilities
