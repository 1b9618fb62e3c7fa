"""Supernet layers: elastic sizes, and experts merged by routers (Mixture-of-Supernets, arXiv 2306.04845)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mos_fairseq.modules.derived import state_of
from mos_fairseq.modules.elastic_layer_norm import ElasticLayerNorm
from mos_fairseq.modules.elastic_linear import ElasticLinear
from mos_fairseq.modules.multihead_attention import MultiheadAttention
from mos_fairseq.modules.router import LayerRouter, NeuronRouter
from mos_fairseq.modules.transformer_layer import LayerOptions, TransformerDecoderLayer, TransformerEncoderLayer


@dataclass(frozen=True)
class MixtureOptions:
    """How a supernet layer mixes experts.

    ``routing``: ``none`` (plain weight sharing), ``layer`` or ``neuron``; ``linears``: which matrices have experts,
    ``ffn``, ``attention`` or ``all``; ``lowest_encoding``: smallest value of each feature of the arch encoding; the
    rest are the router's.
    """

    routing: str = "none"
    num_experts: int = 1
    linears: str = "ffn"
    lowest_encoding: tuple[float, ...] = ()
    router_hidden_dim: int = 128
    router_layers: int = 2
    router_dropout: float = 0.1

    def experts_of(self, part: str) -> int:
        """Number of experts of a matrix in ``part`` ("ffn" or "attention")."""
        return self.num_experts if self.routing != "none" and self.linears in (part, "all") else 1


@dataclass(frozen=True)
class LayerSizes:
    """Largest sizes of one layer. ``qkv_dim`` is the attention size q at the largest number of heads."""

    embed_dim: int
    ffn_embed_dim: int
    qkv_dim: int
    encoder_embed_dim: int = 0


class _ElasticLayerMixin:
    """Routers, and when the active weights are merged.

    Training, or evaluation with autograd: at every forward, since router and experts receive gradients. Evaluation
    under ``no_grad``: once per active subnet, kept until the subnet, the mode, or any parameter of the layer (values,
    dtype, device) changes.
    """

    def _init_mixture(self, options: MixtureOptions) -> None:
        self._linears = {n: m for n, m in self.named_modules() if isinstance(m, ElasticLinear)}
        self._norms = [m for m in self.modules() if isinstance(m, ElasticLayerNorm)]
        self._encoding: Tensor | None = None
        self._stamp: tuple | None = None
        experts = {n: m for n, m in self._linears.items() if m.num_experts > 1}
        router_args = (options.router_hidden_dim, options.router_layers, options.router_dropout)
        self.router, lowest = None, options.lowest_encoding
        if experts and options.routing == "layer":
            self.router = LayerRouter(lowest, options.num_experts, *router_args)
        elif experts and options.routing == "neuron":
            self.router = nn.ModuleDict(
                {n.replace(".", "_"): NeuronRouter(lowest, m, *router_args) for n, m in experts.items()}
            )
        self._max_dropouts = {m: m.p for m in self._dropouts()}
        # looking for them costs more than looking at all their parameters; they stay, parameters may be replaced
        self._owners = [m for m in self.modules() if m._parameters]

    def _dropouts(self) -> list[nn.Module]:
        attentions = [m for m in self.modules() if isinstance(m, MultiheadAttention)]
        return [self.dropout_module, self.activation_dropout_module, *(a.dropout_module for a in attentions)]

    def set_arch(self, encoding: Tensor, dropout_scale: float) -> None:
        """New active subnet: ``encoding`` [n] for the routers, dropouts scaled by d/d_max; sizes are set apart."""
        self._encoding = encoding
        for module, p in self._max_dropouts.items():
            module.p = p * dropout_scale
        self.release()

    def mixing_probs(self) -> dict[str, Tensor]:
        """Mixing weights in force of each expert matrix by its name: [E] (layer-wise) or [E, G, o] (neuron-wise)."""
        if self.router is None:
            return {}
        encoding = self._encoding.to(next(self.router.parameters()))
        names = [n for n, m in self._linears.items() if m.num_experts > 1]
        if isinstance(self.router, LayerRouter):
            return dict.fromkeys(names, self.router(encoding))
        return {
            n: self.router[n.replace(".", "_")](encoding, self._linears[n].active_out_features) for n in names
        }

    def materialize(self, check: bool = True) -> None:
        """Merge the active weights; ``check=False`` trusts weights kept from an earlier forward if there are any."""
        keep = not (self.training or torch.is_grad_enabled())
        stamp = None
        if keep:
            if not check and self._stamp is not None:
                return
            parameters = (p for m in self._owners for p in m._parameters.values() if p is not None)
            stamp = tuple(map(state_of, parameters))
            if stamp == self._stamp:
                return
        probs = self.mixing_probs()
        for name, linear in self._linears.items():
            linear.materialize(probs.get(name))
        for norm in self._norms:
            norm.materialize()
        self._stamp = stamp

    def release(self) -> None:
        """Forget merged weights."""
        self._stamp = None
        for module in (*self._linears.values(), *self._norms):
            module.release()

    def keeps_any(self) -> bool:
        return self._stamp is not None or super().keeps_any()

    def forget(self) -> None:
        """Forget merged weights, and the routers' transposed ones."""
        self.release()
        super().forget()

    def forward(self, x: Tensor, *args, **kwargs):
        incremental_state = kwargs.get("incremental_state")
        self.materialize(check=incremental_state is None or self.self_attn.cache(incremental_state) is None)
        try:
            return super().forward(x, *args, **kwargs)
        finally:
            if self._stamp is None:
                self.release()


def _attention(
    sizes: LayerSizes, num_heads: int, options: LayerOptions, mixture: MixtureOptions, cross: bool
) -> MultiheadAttention:
    experts = mixture.experts_of("attention")
    # fairseq's gain for query, key and value: a fused Xavier draw would see three times the rows
    gain = 1 / math.sqrt(2)

    def linear(d_in: int, groups: int) -> ElasticLinear:
        return ElasticLinear(d_in, sizes.qkv_dim, groups=groups, num_experts=experts, gain=gain)

    if cross:
        projections = {"q_proj": linear(sizes.embed_dim, 1), "kv_proj": linear(sizes.encoder_embed_dim, 2)}
    else:
        projections = {"qkv_proj": linear(sizes.embed_dim, 3)}
    out_proj = ElasticLinear(sizes.qkv_dim, sizes.embed_dim, num_experts=experts)
    return MultiheadAttention(projections, out_proj, num_heads, options.attention_dropout)


def _ffn(sizes: LayerSizes, mixture: MixtureOptions) -> tuple[ElasticLinear, ElasticLinear]:
    experts = mixture.experts_of("ffn")
    return (
        ElasticLinear(sizes.embed_dim, sizes.ffn_embed_dim, num_experts=experts, gain=None),
        ElasticLinear(sizes.ffn_embed_dim, sizes.embed_dim, num_experts=experts, gain=None),
    )


def _set_attention(attention: MultiheadAttention, embed_dim: int, memory_dim: int, qkv_dim: int, heads: int) -> None:
    if attention.is_cross_attention:
        attention.q_proj.set_active_size(embed_dim, qkv_dim)
        attention.kv_proj.set_active_size(memory_dim, qkv_dim)
    else:
        attention.qkv_proj.set_active_size(embed_dim, qkv_dim)
    attention.out_proj.set_active_size(qkv_dim, embed_dim)
    attention.num_heads = heads


class ElasticEncoderLayer(_ElasticLayerMixin, TransformerEncoderLayer):
    """Encoder layer of a supernet; ``sizes`` are the largest."""

    def __init__(self, sizes: LayerSizes, num_heads: int, options: LayerOptions, mixture: MixtureOptions) -> None:
        norms = [ElasticLayerNorm(sizes.embed_dim) for _ in range(2)]
        attention = _attention(sizes, num_heads, options, mixture, cross=False)
        super().__init__(attention, *_ffn(sizes, mixture), norms, options)
        self._init_mixture(mixture)

    def set_active_sizes(self, embed_dim: int, ffn_embed_dim: int, qkv_dim: int, num_heads: int) -> None:
        """Active sizes; ``qkv_dim`` is heads x head width."""
        _set_attention(self.self_attn, embed_dim, embed_dim, qkv_dim, num_heads)
        self.fc1.set_active_size(embed_dim, ffn_embed_dim)
        self.fc2.set_active_size(ffn_embed_dim, embed_dim)
        for norm in self._norms:
            norm.set_active_size(embed_dim)
        self.release()


class ElasticDecoderLayer(_ElasticLayerMixin, TransformerDecoderLayer):
    """Decoder layer of a supernet; ``sizes`` and ``num_heads`` are the largest, of self- and cross-attention each."""

    def __init__(
        self,
        sizes: tuple[LayerSizes, LayerSizes],
        num_heads: tuple[int, int],
        options: LayerOptions,
        mixture: MixtureOptions,
    ) -> None:
        norms = [ElasticLayerNorm(sizes[0].embed_dim) for _ in range(3)]
        self_attn = _attention(sizes[0], num_heads[0], options, mixture, cross=False)
        encoder_attn = _attention(sizes[1], num_heads[1], options, mixture, cross=True)
        super().__init__(self_attn, encoder_attn, *_ffn(sizes[0], mixture), norms, options)
        self._init_mixture(mixture)

    def set_active_sizes(
        self,
        embed_dim: int,
        encoder_embed_dim: int,
        ffn_embed_dim: int,
        self_attention: tuple[int, int],
        cross_attention: tuple[int, int],
    ) -> None:
        """Active sizes; each attention is (qkv_dim, heads)."""
        _set_attention(self.self_attn, embed_dim, embed_dim, *self_attention)
        _set_attention(self.encoder_attn, embed_dim, encoder_embed_dim, *cross_attention)
        self.fc1.set_active_size(embed_dim, ffn_embed_dim)
        self.fc2.set_active_size(ffn_embed_dim, embed_dim)
        for norm in self._norms:
            norm.set_active_size(embed_dim)
        self.release()
