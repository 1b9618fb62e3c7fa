"""Supernet layers: elastic sizes, and experts merged by routers (Mixture-of-Supernets, arXiv 2306.04845)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor, nn

from mos_fairseq.modules.derived import state_of
from mos_fairseq.modules.elastic_layer_norm import ElasticLayerNorm
from mos_fairseq.modules.elastic_linear import ElasticLinear
from mos_fairseq.modules.factored_linear import FactoredLinear, elastic_factors
from mos_fairseq.modules.low_rank import drawn_aside
from mos_fairseq.modules.multihead_attention import MultiheadAttention
from mos_fairseq.modules.router import LayerRouter, NeuronRouter, RankRouter, probs_of
from mos_fairseq.modules.transformer_layer import LayerOptions, TransformerLayer
from mos_fairseq.sizes import AttentionSizes, LayerSizes

if TYPE_CHECKING:  # what the mixin is put in front of
    _Base = TransformerLayer
else:
    _Base = object


class Experts(TypedDict, total=False):
    """Arguments of :class:`ElasticLinear`."""

    num_experts: int
    expert_rank: int


@dataclass(frozen=True)
class MixtureOptions:
    """How a supernet layer mixes experts.

    ``routing``: ``none`` (plain weight sharing), ``layer``, ``neuron``, or ``rank``, which experts of low rank have
    alone; ``expert_rank``: their rank, 0 for full matrices; ``linears``: which matrices have experts, ``ffn``,
    ``attention`` or ``all``; ``lowest_encoding``: smallest value of each feature of the arch encoding; the rest are the
    router's.
    """

    routing: str = "none"
    num_experts: int = 1
    expert_rank: int = 0
    linears: str = "ffn"
    lowest_encoding: tuple[float, ...] = ()
    router_hidden_dim: int = 128
    router_layers: int = 2
    router_dropout: float = 0.1

    def experts_of(self, part: str) -> Experts:
        """Return the number of experts and their rank for a matrix in ``part`` ("ffn" or "attention")."""
        if self.routing == "none" or self.linears not in (part, "all"):
            return {}
        return {"num_experts": self.num_experts, "expert_rank": self.expert_rank}


def _is_autocast(x: Tensor) -> bool:
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


class _ElasticLayerMixin(_Base):
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
        self.router: LayerRouter | RankRouter | nn.ModuleDict | None = None
        # beside experts of low rank, routers leave torch's generator to the shared weights
        with drawn_aside("routers") if options.expert_rank else nullcontext():
            self._init_routers(options)
        self._max_dropouts = {m: m.p for m in self._dropouts()}
        # looking for them costs more than looking at all their parameters; they stay, parameters may be replaced
        self._owners = [m for m in self.modules() if m._parameters]

    def _init_routers(self, options: MixtureOptions) -> None:
        """Routers are drawn as they are for full experts, see :class:`LayerRouter`; a single expert has none."""
        experts = {n: m for n, m in self._linears.items() if m.num_experts > 1}
        router_args = (options.router_hidden_dim, options.router_layers, options.router_dropout)
        lowest = options.lowest_encoding
        if experts and options.routing == "layer":
            self.router = LayerRouter(lowest, options.num_experts, *router_args)
        elif experts and options.routing == "neuron":
            self.router = nn.ModuleDict(
                {n.replace(".", "_"): NeuronRouter(lowest, m, *router_args) for n, m in experts.items()}
            )
        elif experts and options.routing == "rank":
            sizes = (len(experts), options.num_experts, options.expert_rank)
            self.router = RankRouter(lowest, *sizes, *router_args)

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
        """Mixing weights in force of each expert matrix by its name: [E] (layer-wise), [E, G, o] (neuron-wise) or
        [E, R] (of rank components)."""
        if self.router is None:
            return {}
        if self._encoding is None:
            raise RuntimeError("no subnet is active: set_arch comes before mixing_probs")
        encoding = self._encoding.to(next(self.router.parameters()))
        # autocast would cut the encoding and the logits to half precision, and copy the routers' matrices for it
        with torch.autocast(encoding.device.type, enabled=False) if _is_autocast(encoding) else nullcontext():
            return self._probs(self.router, encoding)

    def _probs(self, router: LayerRouter | RankRouter | nn.ModuleDict, encoding: Tensor) -> dict[str, Tensor]:
        names = [n for n, m in self._linears.items() if m.num_experts > 1]
        if isinstance(router, LayerRouter):
            return dict.fromkeys(names, router(encoding))
        if isinstance(router, RankRouter):
            return dict(zip(names, router(encoding), strict=True))
        routers = [router[n.replace(".", "_")] for n in names]
        sizes = [self._linears[n].active_out_features for n in names]
        return dict(zip(names, probs_of(routers, encoding, sizes), strict=True))

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
        merged: list[ElasticLinear | ElasticLayerNorm] = [*self._linears.values(), *self._norms]
        for module in merged:
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


def _attention(width: int, sizes: AttentionSizes, options: LayerOptions, mixture: MixtureOptions) -> MultiheadAttention:
    experts = mixture.experts_of("attention")
    # fairseq's gain for query, key and value: a fused Xavier draw would see three times the rows
    gain = 1 / math.sqrt(2)

    def linear(d_in: int, groups: int) -> ElasticLinear:
        return ElasticLinear(d_in, sizes.inner, groups=groups, **experts, gain=gain)

    if sizes.is_cross:
        projections = {"q_proj": linear(width, 1), "kv_proj": linear(sizes.memory, 2)}
    else:
        projections = {"qkv_proj": linear(width, 3)}
    out_proj = ElasticLinear(sizes.inner, width, **experts)
    return MultiheadAttention(projections, out_proj, sizes.heads, options.attention_dropout)


def _ffn(
    sizes: LayerSizes, mixture: MixtureOptions
) -> tuple[ElasticLinear | FactoredLinear, ElasticLinear | FactoredLinear]:
    experts, d, f = mixture.experts_of("ffn"), sizes.width, sizes.ffn
    if sizes.rank:
        return elastic_factors(d, f, sizes.rank, **experts), elastic_factors(f, d, sizes.rank, **experts)
    return ElasticLinear(d, f, **experts, gain=None), ElasticLinear(f, d, **experts, gain=None)


def _set_ffn(linear: ElasticLinear | FactoredLinear, in_size: int, out_size: int, rank: int) -> None:
    if isinstance(linear, FactoredLinear):
        linear.down.set_active_size(in_size, rank)
        linear.up.set_active_size(rank, out_size)
    else:
        linear.set_active_size(in_size, out_size)


def _set_attention(attention: MultiheadAttention, width: int, sizes: AttentionSizes) -> None:
    if attention.is_cross_attention:
        attention.q_proj.set_active_size(width, sizes.inner)
        attention.kv_proj.set_active_size(sizes.memory, sizes.inner)
    else:
        attention.qkv_proj.set_active_size(width, sizes.inner)
    attention.out_proj.set_active_size(sizes.inner, width)
    attention.num_heads = sizes.heads


class ElasticTransformerLayer(_ElasticLayerMixin, TransformerLayer):
    """Layer of a supernet; ``sizes`` are the largest."""

    def __init__(self, sizes: LayerSizes, options: LayerOptions, mixture: MixtureOptions) -> None:
        norms = [ElasticLayerNorm(sizes.width, options.layer_norm_eps) for _ in range(len(sizes.attentions) + 1)]
        attentions = {
            name: _attention(sizes.width, attention, options, mixture) for name, attention in sizes.attentions.items()
        }
        super().__init__(attentions, *_ffn(sizes, mixture), norms, options)
        self._init_mixture(mixture)

    def set_active_sizes(self, sizes: LayerSizes) -> None:
        """Use the first rows and columns of these sizes from now on."""
        for name, attention in sizes.attentions.items():
            _set_attention(getattr(self, name), sizes.width, attention)
        _set_ffn(self.fc1, sizes.width, sizes.ffn, sizes.rank)
        _set_ffn(self.fc2, sizes.ffn, sizes.width, sizes.rank)
        for norm in self._norms:
            norm.set_active_size(sizes.width)
        self.release()
