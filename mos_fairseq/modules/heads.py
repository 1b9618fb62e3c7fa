"""What follows a masked language model's encoder, over given linears and norms: dense ones in a static twin, elastic
ones in a supernet (which alone can be set to another size)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mos_fairseq.modules.activation import activation_function
from mos_fairseq.modules.dropout import Dropout


class MaskedLanguageHead(nn.Module):
    """What comes before the projection to the vocabulary, and that projection's bias.

    Args:
        dense: d -> d.
        layer_norm: over d.
        activation_fn: fairseq's name of it.
        num_words: V.
    """

    def __init__(self, dense: nn.Module, layer_norm: nn.Module, activation_fn: str, num_words: int) -> None:
        super().__init__()
        self.dense, self.layer_norm = dense, layer_norm
        self.activation_fn = activation_function(activation_fn)
        self.bias = nn.Parameter(torch.zeros(num_words))

    def set_active_size(self, width: int) -> None:
        """Use the first ``width`` channels."""
        self.dense.set_active_size(width, width)
        self.layer_norm.set_active_size(width)

    def forward(self, features: Tensor) -> Tensor:
        """features [..., d] -> what is projected [..., d]."""
        return self.layer_norm(self.activation_fn(self.dense(features)))


class ClassificationHead(nn.Module):
    """Classes of a sentence, or of a pair of sentences, from the encoder's output at ``<s>``.

    Args:
        dense: d -> inner width.
        out_proj: inner width -> classes.
        activation_fn: fairseq's name of it.
        dropout: before both.
        inner_dim: the inner width; None: d, also where a subnet narrows it.
    """

    def __init__(
        self, dense: nn.Module, out_proj: nn.Module, activation_fn: str, dropout: float, inner_dim: int | None = None
    ) -> None:
        super().__init__()
        self.dense, self.out_proj, self.inner_dim = dense, out_proj, inner_dim
        self.num_classes = out_proj.bias.size(-1)
        self.activation_fn = activation_function(activation_fn)
        self.dropout_module = Dropout(dropout, module_name=self.__class__.__name__)

    def set_active_size(self, width: int) -> None:
        """Read the first ``width`` channels."""
        inner = self.inner_dim or width
        self.dense.set_active_size(width, inner)
        self.out_proj.set_active_size(inner, self.num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """features [B, T, d] -> logits [B, classes]."""
        x = self.dropout_module(features[:, 0])
        x = self.dropout_module(self.activation_fn(self.dense(x)))
        return self.out_proj(x)
