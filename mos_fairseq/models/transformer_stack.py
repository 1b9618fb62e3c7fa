"""Common part of encoders and decoders, in supernets and static twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from mos_fairseq.models.transformer_config import (
    TransformerOptions,
    build_positions,
    embed_scale,
    layer_options,
)
from mos_fairseq.modules import Dropout, ElasticEmbedding, LayerOptions, PaddingMemo, PositionalEmbedding
from mos_fairseq.search_space import Stack, Subnet
from mos_fairseq.sizes import LayerSizes


@dataclass(frozen=True)
class LayerKit:
    """Factories of a model's modules: elastic ones for a supernet, dense ones for a static twin.

    Args:
        layer: makes a layer of given sizes.
        norm: makes a norm of a width, with the epsilon added to variances.
        linear: makes a linear from one width to another, initialised as :class:`torch.nn.Linear` is.
        maps: makes the maps around the layers of a subnet's stack, in the subnet's number and widths.
    """

    layer: Callable[[LayerSizes, LayerOptions], nn.Module]
    norm: Callable[[int, float], nn.Module]
    linear: Callable[[int, int], nn.Module]
    maps: Callable[[Subnet, str], nn.Module]


class TransformerStack:
    """Mixin after fairseq's encoder or decoder: embeddings, positions, layers and norms of one declared stack.

    Attributes:
        stack: the declaration.
        embed_dim: active width d.
        num_active_layers: number of ``layers`` that run, from the first on.
        padding_idx, embed_tokens: set before :meth:`init_stack`.
    """

    stack: Stack
    padding_idx: int
    embed_tokens: ElasticEmbedding

    def init_stack(
        self,
        cfg: TransformerOptions,
        stack: Stack,
        subnet: Subnet,
        kit: LayerKit,
        position_dim: int | None = None,
    ) -> None:
        """Build layers, positions and norms; the embeddings must exist.

        Args:
            subnet: determines the sizes; in a supernet it is the largest.
            position_dim: width of the sinusoidal table that positions are cut from, the supernet's (default: its own).
        """
        width, options = subnet.width(stack.name), layer_options(cfg, stack)
        layers = [kit.layer(sizes, options) for sizes in subnet.layers(stack.name)]
        self.cfg, self.stack, self.kit = cfg, stack, kit
        self.embed_positions = build_positions(cfg, stack, width, position_dim or width, self.padding_idx)
        self.layers = nn.ModuleList(layers)
        self.maps = kit.maps(subnet, stack.name) if subnet.maps(stack.name) else None
        norm = partial(kit.norm, width, options.layer_norm_eps)
        self.layernorm_embedding = norm() if stack.setting(cfg, "layernorm_embedding") else None
        self.layer_norm = norm() if stack.normalize_before(cfg) else None
        self.padding_memo = PaddingMemo()
        self.dropout_module = Dropout(cfg.dropout, module_name=f"Transformer{stack.name.capitalize()}")  # as fairseq's
        self.set_active_sizes(subnet)

    def set_active_sizes(self, subnet: Subnet) -> None:
        """Set the width and the number of layers of ``subnet``. (Its modules are set separately.)"""
        self.embed_dim = subnet.width(self.stack.name)
        self.num_active_layers = len(subnet.layers(self.stack.name))

    def set_outer_sizes(self, subnet: Subnet) -> None:
        """In a supernet, set the modules around the layers to ``subnet``, which is already active."""
        for norm in (self.layernorm_embedding, self.layer_norm):
            if norm is not None:
                norm.set_active_size(self.embed_dim)
        if self.maps is not None:
            self.maps.set_active_sizes(self.embed_dim, [layer.width for layer in subnet.layers(self.stack.name)])

    def embed(self, tokens: Tensor, positions: Callable[[PositionalEmbedding, Tensor], Tensor]) -> Tensor:
        """Embed tokens [B, T] as scaled embeddings with positions, normalised, with dropout, [B, T, d].

        ``positions`` returns the rows of the table that are added to embeddings [B, T, d].
        """
        x = embed_scale(self.cfg, self.stack, self.embed_dim) * self.embed_tokens(tokens, self.embed_dim)
        if self.embed_positions is not None:
            x = x + positions(self.embed_positions, x)
        if self.layernorm_embedding is not None:
            x = self.layernorm_embedding(x)
        return self.dropout_module(x)


def embedding_table(dictionary, width: int) -> ElasticEmbedding:
    """Return a table for the words of ``dictionary``."""
    return ElasticEmbedding(len(dictionary), width, dictionary.pad())
