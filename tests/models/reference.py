"""A naive Transformer of one subnet, written only from the equations in ``mos_fairseq/README.md``: one sentence at a
time, without padding or masks, with loops over heads, layers and experts. It reads the supernet's parameters by name
and shares none of its code."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SPANS = {-1: 1, 1: 2, 2: 3}
PAD = 1


def arch_encoding(subnet, space: dict, kind: str) -> Tensor:
    """Section 2: ten numbers, or layer by layer; divided by the space's largest choices."""

    def amounts(key: str) -> list[float]:
        value = getattr(subnet, key)
        value = list(value) if isinstance(value, tuple) else [value]
        choices = space[key]
        if key == "decoder_arbitrary_ende_attn":
            value, choices = [SPANS[v] for v in value], [SPANS[v] for v in choices]
        return [v / max(choices) for v in value]

    result: list[float] = []
    for side in ("encoder", "decoder"):
        result += amounts(f"{side}_embed_dim") + amounts(f"{side}_layers")
        keys = [f"{side}_ffn_embed_dim"] + ([f"{side}_ffn_rank"] if f"{side}_ffn_rank" in space else [])
        keys += [f"{side}_attention_heads"] + ([f"{side}_qkv_dim"] if f"{side}_qkv_dim" in space else [])
        if side == "decoder":
            keys += ["decoder_ende_attention_heads", "decoder_arbitrary_ende_attn"]
        for key in keys:
            values = amounts(key)
            if kind == "aggregate":
                result.append(sum(values) / len(values))
            else:
                result += values + [0.0] * (max(space[f"{side}_layers"]) - len(values))
    return torch.tensor(result, dtype=torch.float64)


class Reference:
    """``logits(source, target)`` of one subnet of ``model``; ``source`` and ``target`` are lists of word numbers."""

    def __init__(self, model, subnet, space: dict, options: dict) -> None:
        self.p = {name: p.detach().double() for name, p in model.named_parameters(remove_duplicate=False)}
        self.subnet, self.space, self.options = subnet, space, options
        self.encoding = arch_encoding(subnet, space, options.get("arch_encoding", "aggregate"))

    # --- weights ---------------------------------------------------------------------------------------------------

    def router(self, prefix: str) -> Tensor:
        """Logits of the MLP, shaped as the head's bias."""
        hidden = (self.p[f"{prefix}.trunk.0.weight"] @ self.encoding + self.p[f"{prefix}.trunk.0.bias"]).relu()
        return self.p[f"{prefix}.head.weight"] @ hidden + self.p[f"{prefix}.head.bias"]

    def linear(self, layer: str, name: str, out_size: int, in_size: int) -> list[tuple[Tensor, Tensor]]:
        """(weight [o, i], bias [o]) of each group of rows."""
        weight, bias = self.p[f"{layer}.{name}.weight"], self.p.get(f"{layer}.{name}.bias")
        experts, groups = weight.shape[:2]
        part = "ffn" if name.startswith("fc") else "attention"
        routing = self.options["mos_routing"]
        mixed = routing != "none" and self.options.get("mos_linears", "ffn") in (part, "all")
        assert experts == (self.options["num_experts"] if mixed else 1)
        if not mixed:
            probs = torch.ones(1, groups, out_size, dtype=torch.float64)
        elif routing == "layer":
            logits = self.router(f"{layer}.router")
            probs = logits.softmax(0)[:, None, None].expand(experts, groups, out_size)
        else:
            logits = self.router(f"{layer}.router.{name.replace('.', '_')}")
            probs = logits.view(experts, groups, -1)[:, :, :out_size].softmax(0)
        return [
            (
                sum(torch.diag(probs[e, g]) @ weight[e, g, :out_size, :in_size] for e in range(experts)),
                0.0 if bias is None else sum(torch.diag(probs[e, g]) @ bias[e, g, :out_size] for e in range(experts)),
            )
            for g in range(groups)
        ]

    def norm(self, name: str, x: Tensor) -> Tensor:
        d = x.size(-1)
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * self.p[f"{name}.weight"][:d] + self.p[f"{name}.bias"][:d]

    # --- layers ----------------------------------------------------------------------------------------------------

    def attention(self, layer: str, name: str, x: Tensor, memory: Tensor, heads: int, causal: bool) -> Tensor:
        d, d_memory = x.size(-1), memory.size(-1)
        side, _, index = layer.split(".")
        if (own := getattr(self.subnet, f"{side}_qkv_dim")) is not None:
            q_size = own[int(index)]
        else:
            q_size = self.subnet.qkv_dim or self.subnet.head_dim * heads
        if causal or name == "self_attn":
            (wq, bq), (wk, bk), (wv, bv) = self.linear(layer, f"{name}.qkv_proj", q_size, d)
        else:
            ((wq, bq),) = self.linear(layer, f"{name}.q_proj", q_size, d)
            (wk, bk), (wv, bv) = self.linear(layer, f"{name}.kv_proj", q_size, d_memory)
        ((wo, bo),) = self.linear(layer, f"{name}.out_proj", d, q_size)
        q, k, v = x @ wq.T + bq, memory @ wk.T + bk, memory @ wv.T + bv
        size, outputs = q_size // heads, []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            for t in range(len(x) if causal else 0):
                scores[t, t + 1 :] = -math.inf
            outputs.append(scores.softmax(-1) @ v[:, part])
        return torch.cat(outputs, -1) @ wo.T + bo

    def feed_forward(self, layer: str, x: Tensor, size: int) -> Tensor:
        d = x.size(-1)
        side, _, index = layer.split(".")
        rank = getattr(self.subnet, f"{side}_ffn_rank", None)
        if rank is not None:
            r = rank[int(index)]
            ((u1, b1),), ((v1, _),) = self.linear(layer, "fc1.up", size, r), self.linear(layer, "fc1.down", r, d)
            ((u2, b2),), ((v2, _),) = self.linear(layer, "fc2.up", d, r), self.linear(layer, "fc2.down", r, size)
            w1, w2 = u1 @ v1, u2 @ v2
        else:
            ((w1, b1),), ((w2, b2),) = self.linear(layer, "fc1", size, d), self.linear(layer, "fc2", d, size)
        return (x @ w1.T + b1).relu() @ w2.T + b2

    def sublayer(self, side: str, name: str, x: Tensor, function) -> Tensor:
        if self.options.get(f"{side}_normalize_before"):
            return x + function(self.norm(name, x))
        return self.norm(name, x + function(x))

    # --- model -----------------------------------------------------------------------------------------------------

    def embed(self, side: str, words: list[int]) -> Tensor:
        d = getattr(self.subnet, f"{side}_embed_dim")
        largest = max(self.space[f"{side}_embed_dim"])
        x = self.p[f"{side}.embed_tokens.weight"][words, :d] * math.sqrt(d)
        if self.options.get(f"{side}_learned_pos"):
            x = x + self.p[f"{side}.embed_positions.weight"][PAD + 1 : PAD + 1 + len(words), :d]
        else:
            x = x + torch.stack([sinusoid(PAD + 1 + i, largest)[:d] for i in range(len(words))])
        return self.norm(f"{side}.layernorm_embedding", x) if self.options.get("layernorm_embedding") else x

    def encode(self, words: list[int]) -> list[Tensor]:
        """Output of every layer."""
        x, outputs = self.embed("encoder", words), []
        for i in range(self.subnet.encoder_layers):
            layer, heads = f"encoder.layers.{i}", self.subnet.encoder_attention_heads[i]
            x = self.sublayer(
                "encoder",
                f"{layer}.self_attn_layer_norm",
                x,
                lambda y: self.attention(layer, "self_attn", y, y, heads, causal=False),  # noqa: B023  called at once
            )
            size = self.subnet.encoder_ffn_embed_dim[i]
            x = self.sublayer(
                "encoder",
                f"{layer}.final_layer_norm",
                x,
                lambda y: self.feed_forward(layer, y, size),  # noqa: B023
            )
            outputs.append(x)
        if self.options.get("encoder_normalize_before"):
            outputs = [self.norm("encoder.layer_norm", y) for y in outputs]
        return outputs

    def logits(self, source: list[int], target: list[int]) -> Tensor:
        """[T, V]."""
        encoded, x, subnet = self.encode(source), self.embed("decoder", target), self.subnet
        for i in range(subnet.decoder_layers):
            layer, heads = f"decoder.layers.{i}", subnet.decoder_attention_heads[i]
            cross_heads, size = subnet.decoder_ende_attention_heads[i], subnet.decoder_ffn_embed_dim[i]
            memory = torch.cat(encoded[-SPANS[subnet.decoder_arbitrary_ende_attn[i]] :])

            def self_attention(y, layer=layer, heads=heads):
                return self.attention(layer, "self_attn", y, y, heads, causal=True)

            def cross_attention(y, layer=layer, heads=cross_heads, memory=memory):
                return self.attention(layer, "encoder_attn", y, memory, heads, causal=False)

            def feed_forward(y, layer=layer, size=size):
                return self.feed_forward(layer, y, size)

            x = self.sublayer("decoder", f"{layer}.self_attn_layer_norm", x, self_attention)
            x = self.sublayer("decoder", f"{layer}.encoder_attn_layer_norm", x, cross_attention)
            x = self.sublayer("decoder", f"{layer}.final_layer_norm", x, feed_forward)
        if self.options.get("decoder_normalize_before"):
            x = self.norm("decoder.layer_norm", x)
        return x @ self.p["decoder.output_embedding.weight"][:, : x.size(-1)].T


def sinusoid(position: int, d: int) -> Tensor:
    """Sines, then cosines (fairseq's order)."""
    half = d // 2
    angles = torch.tensor([position * 10000 ** (-i / (half - 1)) for i in range(half)], dtype=torch.float64)
    return torch.cat([angles.sin(), angles.cos()])
