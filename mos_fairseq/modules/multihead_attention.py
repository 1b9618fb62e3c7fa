"""Multi-head attention over fused projections, for supernets and static twins alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from fairseq.incremental_decoding_utils import with_incremental_state
from torch import Tensor, nn

from mos_fairseq.modules import kernels
from mos_fairseq.modules.dropout import Dropout


@with_incremental_state
class MultiheadAttention(nn.Module):
    """Self-attention (``qkv_proj``) or cross-attention (``q_proj`` and ``kv_proj``), batch first.

    The projections are given, so the same code serves :class:`torch.nn.Linear` and
    :class:`~mos_fairseq.modules.ElasticLinear`. Attention size q = heads x head width is read off the projections'
    output, so fewer heads either re-partition a fixed size (``qkv_dim``) or use fewer rows (``head_dim``).

    Args:
        projections: ``{"qkv_proj": d -> 3q}`` or ``{"q_proj": d -> q, "kv_proj": d_memory -> 2q}``.
        out_proj: q -> d.
        num_heads: active number of heads.
        dropout: of the attention probabilities.
    """

    def __init__(self, projections: dict[str, nn.Module], out_proj: nn.Module, num_heads: int, dropout: float) -> None:
        super().__init__()
        for name, module in projections.items():
            self.add_module(name, module)
        self.out_proj = out_proj
        self.num_heads = num_heads
        self.is_cross_attention = "kv_proj" in projections
        self.dropout_module = Dropout(dropout, module_name=self.__class__.__name__)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        is_causal: bool = False,
        incremental_state: dict | None = None,
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        """
        Args:
            x: queries (and, in self-attention, keys and values) [B, T, d].
            memory: what cross-attention reads [B, S, d_memory], or [B / beam, S, d_memory] where `beam` consecutive
                rows of x, of one position each, read the same; not needed once it is cached.
            mask: True where attention is allowed, broadcastable to [B, h, T, S] (for a memory, its B); cached with it.
            is_causal: position t attends to positions <= t; not together with a mask, and of no effect in incremental
                decoding, where x is the last position.
            incremental_state: fairseq's cache, see :meth:`cache`.

        Returns:
            output [B, T, d], and a function that computes the probabilities [B, h, T, S] (before dropout): torch's
            fused kernels do not tell them.
        """
        if is_causal and mask is not None:
            raise ValueError("is_causal is True and a mask is given: combine the causal mask with the other")
        if self.is_cross_attention:
            q, k, v, mask = self._project_cross(x, memory, mask, incremental_state)
        else:
            q, k, v = self._split_heads(self.qkv_proj(x), 3)
            if incremental_state is not None:
                k, v = self._append(k, v, incremental_state)
                is_causal = False
        dropout = self.dropout_module.p if self.training or self.dropout_module.apply_during_inference else 0.0
        beam = q.size(0) // k.size(0)
        if beam > 1:  # the queries of a sentence's beams, as if they were consecutive
            q = q.squeeze(2).unflatten(0, (-1, beam)).transpose(1, 2)
        probabilities = partial(_probabilities, q, k, mask, is_causal, beam)
        if q.size(2) == 1 and mask is None and dropout == 0 and _is_worth_two_products(q, k):
            context = _one_query_attention(q, k, v)
        elif dropout and q.is_cpu and kernels.policy().enabled and not torch.compiler.is_compiling():
            context = self.dropout_module(_attention_weights(q, k, mask, is_causal)) @ v
        else:
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal)
        context = context.transpose(1, 2)
        return self.out_proj(context.flatten(2) if beam == 1 else context.reshape(*x.shape[:2], -1)), probabilities

    def _split_heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[B, T, parts*q] -> parts x [B, h, T, q/h]."""
        return x.view(x.size(0), x.size(1), parts, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def _project_cross(
        self, x: Tensor, memory: Tensor | None, mask: Tensor | None, incremental_state: dict | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        (q,) = self._split_heads(self.q_proj(x), 1)
        cache = self.cache(incremental_state)
        if cache is not None:
            return q, cache["k"], cache["v"], cache["mask"]
        k, v = self._split_heads(self.kv_proj(memory), 2)
        if incremental_state is not None:
            cache = {"k": k.contiguous(), "v": v.contiguous(), "mask": mask, "beam": q.size(0) // k.size(0)}
            self.set_incremental_state(incremental_state, "kv", cache)
        return q, k, v, mask

    def _append(self, k: Tensor, v: Tensor, incremental_state: dict) -> tuple[Tensor, Tensor]:
        """Write the last position's keys and values behind the others, in place where there is room."""
        cache = self.cache(incremental_state)
        length = 0 if cache is None else cache["length"]
        buffer = None if cache is None else cache["kv"]
        if buffer is None or length + k.size(2) > buffer.size(3):
            batch, heads, steps, width = k.shape
            roomy = k.new_empty(2, batch, heads, length + steps + kernels.policy().cache_room, width)
            if buffer is not None:
                roomy[:, :, :, :length] = buffer[:, :, :, :length]
            buffer = roomy
        end = length + k.size(2)
        buffer[0, :, :, length:end], buffer[1, :, :, length:end] = k, v
        self.set_incremental_state(incremental_state, "kv", {"kv": buffer, "length": end})
        return buffer[0, :, :, :end], buffer[1, :, :, :end]

    def cache(self, incremental_state: dict | None) -> dict | None:
        """What is kept of earlier positions, None before the first step.

        Self-attention: ``kv`` [2, B, h, room, q/h] and the ``length`` in use. Cross-attention: ``k`` and ``v``
        [B / beam, h, S, q/h], ``mask``, and ``beam``, how many consecutive rows of the batch share a sentence.
        """
        return None if incremental_state is None else self.get_incremental_state(incremental_state, "kv")

    @torch.no_grad()
    def reorder_incremental_state(self, incremental_state: dict, new_order: Tensor) -> dict:
        """Reorder the cache to the beam's new order [B']; called by fairseq for every module that has it.

        As in fairseq, cross-attention ignores an order of unchanged size: beams move within their sentence only, and
        all beams of a sentence read the same encoder output.
        """
        cache = self.cache(incremental_state)
        if cache is None:
            return incremental_state
        if not self.is_cross_attention:
            cache = {"kv": cache["kv"].index_select(1, new_order), "length": cache["length"]}
        elif cache["k"].size(0) * cache["beam"] != new_order.size(0):
            cache = _reordered_memory(cache, new_order)
        self.set_incremental_state(incremental_state, "kv", cache)
        return incremental_state


def _probabilities(q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool, beam: int) -> Tensor:
    """What the queries read of the keys: q [B, h, T, w] and k [B, h, S, w] -> [B, h, T, S]; with ``beam`` > 1 one query
    each of T consecutive rows of the batch -> [B * T, h, 1, S]."""
    weights = _attention_weights(q, k, mask, is_causal)
    return weights if beam == 1 else weights.transpose(1, 2).flatten(0, 1).unsqueeze(2)


def _attention_weights(q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """softmax(q k^T / sqrt(w) + mask): q [B, h, T, w] and k [B, h, S, w] -> [B, h, T, S], computed in fp32 or wider.

    With dropout on a CPU, torch's own attention is such products too, with a slow generator of masks and a search for
    queries that may read nothing. Here such a query reads all keys alike; no model has one.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        scores = (q.to(wide) * q.size(-1) ** -0.5) @ k.to(wide).transpose(-2, -1)
        if is_causal:
            mask = torch.ones(q.size(2), k.size(2), dtype=torch.bool, device=q.device).tril()
        if mask is not None:  # a sum has a cheaper gradient than a choice
            lowest = torch.finfo(wide).min
            scores = scores + torch.zeros(mask.shape, dtype=wide, device=q.device).masked_fill_(~mask, lowest)
        return torch.softmax(scores, dim=-1).to(q.dtype)


def _reordered_memory(cache: dict, new_order: Tensor) -> dict:
    """The cache of cross-attention for other sentences, still one copy a sentence if they keep their beams together."""
    beam = cache["beam"]
    sentences = new_order // beam
    if new_order.size(0) % beam == 0 and torch.equal(sentences, sentences[::beam].repeat_interleave(beam)):
        sentences = sentences[::beam]
    else:
        beam = 1
    kept = {n: None if cache[n] is None else cache[n].index_select(0, sentences) for n in ("k", "v", "mask")}
    return kept | {"beam": beam}


def _is_worth_two_products(q: Tensor, k: Tensor) -> bool:
    policy = kernels.policy()
    return q.size(0) * q.size(1) >= policy.attention_queries and k.size(2) >= policy.attention_keys


def _one_query_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one query each: q [B, h, 1, w], k and v [B, h, S, w] -> [B, h, 1, w].

    For many of them, two batched products are much faster on a CPU than torch's fused kernel, which cuts work along
    the queries.
    """
    batch = q.shape[:2]
    q, k, v = (y.flatten(0, 1) for y in (q * q.size(-1) ** -0.5, k, v))
    weights = torch.softmax(torch.bmm(q, k.transpose(1, 2)).float(), dim=-1)
    return torch.bmm(weights.to(v.dtype), v).unflatten(0, batch)
