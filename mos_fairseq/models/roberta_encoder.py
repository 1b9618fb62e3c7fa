"""Encoder with a head for masked language modelling, shared by the supernet and the static twin."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mos_fairseq.models.transformer_config import RobertaBaseConfig
from mos_fairseq.models.transformer_encoder import EncoderStack
from mos_fairseq.models.transformer_stack import LayerKit, embedding_table
from mos_fairseq.modules import (
    ElasticEmbedding,
    ElasticLinear,
    FactoredLinear,
    MaskedLanguageHead,
    PositionalEmbedding,
)
from mos_fairseq.modules.padding import MaskMemo
from mos_fairseq.search_space import Stack, Subnet

_STD = 0.02


class RobertaEncoder(EncoderStack):
    """Transformer encoder of fairseq's ``roberta``: post-norm, learned positions, normalised embeddings.

    Args:
        stack, subnet, kit: see :meth:`TransformerStack.init_stack`.
    """

    def __init__(self, cfg: RobertaBaseConfig, dictionary, stack: Stack, subnet: Subnet, kit: LayerKit) -> None:
        width = subnet.width(stack.name)
        embed_tokens = embedding_table(dictionary, width)
        super().__init__(cfg, dictionary, embed_tokens, stack, subnet, kit)
        untied = cfg.untie_weights_roberta
        self.output_embedding = embedding_table(dictionary, width) if untied else embed_tokens
        dense, norm = kit.linear(width, width), kit.norm(width, cfg.layer_norm_eps)
        self.mask_memo = MaskMemo()
        self.lm_head = MaskedLanguageHead(dense, norm, str(cfg.activation_fn), len(dictionary))
        _reset_parameters(self, around_each=stack.inside(subnet.values) is stack.bottleneck)

    def set_outer_sizes(self, subnet: Subnet) -> None:
        super().set_outer_sizes(subnet)
        self.lm_head.set_active_size(self.embed_dim)

    def forward(
        self,
        src_tokens: Tensor,
        features_only: bool = False,
        return_all_hiddens: bool = False,
        masked_tokens: Tensor | None = None,
        **unused,
    ) -> tuple[Tensor, dict]:
        """
        Args:
            src_tokens: [B, T].
            masked_tokens: True where words are predicted, [B, T]; None: all words.

        Returns:
            logits [B, T, V], or [N, V] for N ``masked_tokens``, or features [B, T, d] with ``features_only``; and a
            dictionary with ``inner_states``: None, or with ``return_all_hiddens`` the first layer's input and each
            layer's output [T, B, d], in the layer's own width if it has one.
        """
        x, extra = self.extract_features(src_tokens, return_all_hiddens)
        return (x if features_only else self.output_layer(x, masked_tokens)), extra

    def extract_features(self, src_tokens: Tensor, return_all_hiddens: bool = False, **unused) -> tuple[Tensor, dict]:
        """Compute :meth:`forward` up to the head."""
        states, _ = self.layer_outputs(src_tokens)
        x = states[-1]
        if self.maps is not None:
            x = self.maps.after(x)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return x, {"inner_states": [y.transpose(0, 1) for y in states] if return_all_hiddens else None}

    def output_layer(self, features: Tensor, masked_tokens: Tensor | None = None, **unused) -> Tensor:
        """Map features [B, T, d] to logits, see :meth:`forward`."""
        if masked_tokens is not None:
            features = features[self.mask_memo.index(masked_tokens)]
        return self.output_embedding.project(self.lm_head(features)) + self.lm_head.bias


@torch.no_grad()
def _reset_parameters(encoder: RobertaEncoder, around_each: bool) -> None:
    """Initialise all matrices as BERT does, except the routers'. Maps around each layer start as identities."""
    routers = [layer.router for layer in encoder.layers if getattr(layer, "router", None) is not None]
    skipped = {module for router in routers for module in router.modules()}
    # so that products of two factors are as spread as matrices
    stds = {m.up: 1 / math.sqrt(m.rank) for m in encoder.modules() if isinstance(m, FactoredLinear)}
    for module in encoder.modules():
        if module in skipped:
            continue
        if isinstance(module, (ElasticLinear, nn.Linear)):
            std = stds.get(module, _STD)
            if isinstance(module, ElasticLinear):
                module.reset_parameters(None, std=std)
            else:
                nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (ElasticEmbedding, PositionalEmbedding)) and module.weight is not None:
            nn.init.normal_(module.weight, std=_STD)
            nn.init.zeros_(module.weight[module.padding_idx])
    if encoder.maps is not None:
        encoder.maps.reset_parameters(identity=around_each)
