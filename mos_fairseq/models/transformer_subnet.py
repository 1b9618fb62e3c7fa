"""``transformer_subnet``: the static twin, a plain dense Transformer of one subnet's sizes.

What ``get_active_subnet`` of a supernet returns; also trainable from scratch with fairseq's ``translation`` task:
``--arch transformer_subnet --subnet FILE``. No routers, no experts, no slicing but one: embeddings shared between
sides of different width are one table, of which the narrower side reads the first columns.
"""

import math
import struct
from dataclasses import dataclass, field
from typing import Optional  # fairseq reads the annotations, and knows no `str | None`

import torch
from fairseq.models import register_model
from torch import nn

from mos_fairseq.errors import InputError
from mos_fairseq.models.lasting_buffers import from_bits, to_bits
from mos_fairseq.models.transformer_config import (
    TransformerBaseConfig,
    build_embeddings,
    check_rates,
    layer_options,
    outer_norms,
    record_in_config,
)
from mos_fairseq.models.transformer_decoder import TransformerDecoder
from mos_fairseq.models.transformer_encoder import TransformerEncoder
from mos_fairseq.models.transformer_model import TransformerModel
from mos_fairseq.modules import (
    LayerOptions,
    Linear,
    MultiheadAttention,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
)
from mos_fairseq.search_space import Subnet
from mos_fairseq.search_space._yaml import load_json

_WIDTHS = ">2I"  # position_dims, packed


@dataclass
class TransformerSubnetConfig(TransformerBaseConfig):
    """Options of the static twin."""

    subnet: Optional[str] = field(
        default=None,
        metadata={"help": "the architecture: a YAML file of a subnet (ours or HAT's keys), or its inline JSON"},
    )


def _linear(in_features: int, out_features: int, groups: int = 1, gain: float | None = 1.0) -> Linear:
    """Linear whose ``groups`` of rows are each drawn as a matrix of their own: Xavier, torch's default without gain."""
    linear = Linear(in_features, groups * out_features)
    for weight in linear.weight.chunk(groups) if gain is not None else ():
        nn.init.xavier_uniform_(weight, gain=gain)
    nn.init.zeros_(linear.bias)
    return linear


def _attention(embed_dim: int, memory_dim: int | None, qkv_dim: int, heads: int, dropout: float) -> MultiheadAttention:
    gain = 1 / math.sqrt(2)
    if memory_dim is None:
        projections = {"qkv_proj": _linear(embed_dim, qkv_dim, 3, gain)}
    else:
        projections = {
            "q_proj": _linear(embed_dim, qkv_dim, 1, gain),
            "kv_proj": _linear(memory_dim, qkv_dim, 2, gain),
        }
    return MultiheadAttention(projections, _linear(qkv_dim, embed_dim), heads, dropout)


def _ffn(embed_dim: int, ffn_embed_dim: int) -> tuple[Linear, Linear]:
    return _linear(embed_dim, ffn_embed_dim, gain=None), _linear(ffn_embed_dim, embed_dim, gain=None)


def _encoder_layer(subnet: Subnet, index: int, options: LayerOptions) -> TransformerEncoderLayer:
    dim, ffn = subnet.encoder_embed_dim, subnet.encoder_ffn_embed_dim[index]
    heads = subnet.encoder_attention_heads[index]
    attention = _attention(dim, None, attention_size(subnet, heads), heads, options.attention_dropout)
    norms = [nn.LayerNorm(dim) for _ in range(2)]
    return TransformerEncoderLayer(attention, *_ffn(dim, ffn), norms, options)


def _decoder_layer(subnet: Subnet, index: int, options: LayerOptions) -> TransformerDecoderLayer:
    dim, ffn = subnet.decoder_embed_dim, subnet.decoder_ffn_embed_dim[index]
    self_heads, cross_heads = subnet.decoder_attention_heads[index], subnet.decoder_ende_attention_heads[index]
    dropout = options.attention_dropout
    self_attn = _attention(dim, None, attention_size(subnet, self_heads), self_heads, dropout)
    cross = _attention(dim, subnet.encoder_embed_dim, attention_size(subnet, cross_heads), cross_heads, dropout)
    norms = [nn.LayerNorm(dim) for _ in range(3)]
    return TransformerDecoderLayer(self_attn, cross, *_ffn(dim, ffn), norms, options)


def attention_size(sizes, heads: int) -> int:
    """q, the attention's inner size: the fixed ``qkv_dim``, or ``head_dim`` x heads, of a subnet or a search space."""
    return sizes.qkv_dim if sizes.qkv_dim is not None else sizes.head_dim * heads


@register_model("transformer_subnet", dataclass=TransformerSubnetConfig)
class TransformerSubnetModel(TransformerModel):
    """Static twin of one subnet.

    ``position_dims`` is a buffer with the widths of the sinusoidal tables that the sides' positions are cut from: those
    of the supernet that the weights came from, so that fine-tuning and generation go on with the same positions. See
    :mod:`mos_fairseq.models.lasting_buffers` for its form: two numbers of 32 bits.
    """

    def __init__(self, cfg: TransformerSubnetConfig, encoder, decoder, subnet: Subnet) -> None:
        super().__init__(cfg, encoder, decoder)
        self.subnet = subnet
        widths = [s.embed_positions.embedding_dim if s.embed_positions else s.embed_dim for s in (encoder, decoder)]
        self.register_buffer("position_dims", to_bits(struct.pack(_WIDTHS, *widths)))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        key = f"{prefix}position_dims"
        if key in state_dict and not state_dict[key].is_floating_point():  # up to version 0.1.0 two numbers in int64
            state_dict[key] = to_bits(struct.pack(_WIDTHS, *state_dict[key].tolist()))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        for side, width in zip((self.encoder, self.decoder), self._position_dims(), strict=True):
            if width < side.embed_dim:
                raise InputError(f"position_dims is {width} in the checkpoint: the subnet is {side.embed_dim} wide")
            if side.embed_positions is not None:
                side.embed_positions.set_table_width(width)

    def _position_dims(self) -> tuple[int, int]:
        try:
            return struct.unpack(_WIDTHS, from_bits(self.position_dims))
        except ValueError:
            raise InputError("position_dims of the weights is unreadable: they are not of one subnet") from None

    @classmethod
    def build_model(cls, cfg: TransformerSubnetConfig, task) -> "TransformerSubnetModel":
        """Build for fairseq.

        Raises:
            InputError: no subnet given, or a bad one.
        """
        if not cfg.subnet:
            raise InputError("transformer_subnet needs its architecture: --subnet FILE (a YAML file of a subnet)")
        inline = cfg.subnet.lstrip().startswith("{")
        subnet = Subnet.from_dict(load_json(cfg.subnet, "subnet")) if inline else Subnet.load(cfg.subnet)
        record_in_config(cfg, "model", "subnet", subnet.key)
        return cls.from_subnet(cfg, subnet, task.source_dictionary, task.target_dictionary)

    @classmethod
    @torch.inference_mode(False)  # whatever the caller's mode, training may follow
    def from_subnet(
        cls,
        cfg: TransformerSubnetConfig,
        subnet: Subnet,
        src_dict,
        tgt_dict,
        position_dims: tuple[int, int] | None = None,
    ) -> "TransformerSubnetModel":
        """Build from a subnet and two dictionaries; freshly initialised. ``position_dims``: see the class (default: the
        subnet's own widths)."""
        check_rates(cfg, "dropout", "attention_dropout", "activation_dropout")
        encoder_dim, decoder_dim = subnet.encoder_embed_dim, subnet.decoder_embed_dim
        position_dims = position_dims or (encoder_dim, decoder_dim)
        tables = build_embeddings(cfg, src_dict, tgt_dict, encoder_dim, decoder_dim)
        encoder = TransformerEncoder(
            cfg,
            src_dict,
            tables[0],
            encoder_dim,
            position_dims[0],
            [_encoder_layer(subnet, i, layer_options(cfg, "encoder")) for i in range(subnet.encoder_layers)],
            outer_norms(cfg, "encoder", nn.LayerNorm, encoder_dim),
            num_outputs=max(subnet.cross_spans),
        )
        decoder = TransformerDecoder(
            cfg,
            tgt_dict,
            tables[1],
            tables[2],
            decoder_dim,
            position_dims[1],
            [_decoder_layer(subnet, i, layer_options(cfg, "decoder")) for i in range(subnet.decoder_layers)],
            outer_norms(cfg, "decoder", nn.LayerNorm, decoder_dim),
            subnet.cross_spans,
        )
        return cls(cfg, encoder, decoder, subnet)
