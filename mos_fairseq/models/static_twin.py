"""Static twins of all families: plain dense models in one subnet's sizes. No routers, no experts, no slicing.

One table is the exception: if stacks of different width share embeddings, the narrower stack reads the first columns.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self

import torch
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from torch import Tensor, nn

from mos_fairseq.errors import InputError
from mos_fairseq.models.lasting_buffers import from_bits, to_bits
from mos_fairseq.models.transformer_config import check_rates, record_in_config
from mos_fairseq.models.transformer_stack import LayerKit
from mos_fairseq.modules import FactoredLinear, LayerMaps, LayerOptions, Linear, MultiheadAttention, TransformerLayer
from mos_fairseq.modules.factored_linear import spread_as_product
from mos_fairseq.search_space import Family, Subnet
from mos_fairseq.sizes import AttentionSizes, LayerSizes

if TYPE_CHECKING:  # the class that the mixin precedes
    from fairseq.models import BaseFairseqModel as _Base
else:
    _Base = object

_OWN = ("subnet", "trained_parts")  # options that supernets do not have
_IN_WEIGHTS = "load_checkpoint_heads"  # an option of reading them: set wherever this package builds a model


def _linear(in_features: int, out_features: int, groups: int = 1, gain: float | None = 1.0) -> Linear:
    """Return a linear whose ``groups`` of rows are drawn as separate matrices: Xavier, or torch's default without
    gain."""
    linear = Linear(in_features, groups * out_features)
    for weight in linear.weight.chunk(groups) if gain is not None else ():
        nn.init.xavier_uniform_(weight, gain=gain)
    nn.init.zeros_(linear.bias)
    return linear


def _attention(width: int, sizes: AttentionSizes, dropout: float) -> MultiheadAttention:
    gain = 1 / math.sqrt(2)
    if sizes.is_cross:
        projections = {
            "q_proj": _linear(width, sizes.inner, 1, gain),
            "kv_proj": _linear(sizes.memory, sizes.inner, 2, gain),
        }
    else:
        projections = {"qkv_proj": _linear(width, sizes.inner, 3, gain)}
    return MultiheadAttention(projections, _linear(sizes.inner, width), sizes.heads, dropout)


def _ffn(in_features: int, out_features: int, sizes: LayerSizes) -> nn.Module:
    """Return one of a layer's feed-forward linears: two factors where the rank pays, otherwise a matrix."""
    if not sizes.rank_pays:
        return _linear(in_features, out_features, gain=None)
    down = Linear(in_features, sizes.rank, bias=False)
    return spread_as_product(FactoredLinear(down, _linear(sizes.rank, out_features, gain=None)))


def _layer(sizes: LayerSizes, options: LayerOptions) -> TransformerLayer:
    attentions = {
        name: _attention(sizes.width, attention, options.attention_dropout)
        for name, attention in sizes.attentions.items()
    }
    fc1, fc2 = _ffn(sizes.width, sizes.ffn, sizes), _ffn(sizes.ffn, sizes.width, sizes)
    norms = [nn.LayerNorm(sizes.width, options.layer_norm_eps) for _ in range(len(attentions) + 1)]
    return TransformerLayer(attentions, fc1, fc2, norms, options)


def _maps(subnet: Subnet, stack: str) -> LayerMaps:
    return LayerMaps(subnet.maps(stack))


def _packed(numbers: Sequence[int]) -> Tensor:
    return to_bits(struct.pack(f">{len(numbers)}I", *numbers))


class StaticTwin(_Base):
    """Mixin before a model of one family.

    ``position_dims`` is a buffer with the widths of the sinusoidal tables from which the stacks' positions are cut.
    They come from the supernet that the weights come from, so that fine-tuning and generation keep the same positions.
    See :mod:`mos_fairseq.models.lasting_buffers` for its encoding: a number of 32 bits for each.

    Attributes:
        arch: fairseq's name of the model.
        family: family of its subnets.
        config: class of its configuration.
        subnet: its sizes.
    """

    arch: str
    family: Family
    config: type

    def __init__(self, cfg: Any, stacks: Sequence[nn.Module], subnet: Subnet) -> None:
        super().__init__(cfg, *stacks)
        self.subnet = subnet
        widths = [s.embed_positions.embedding_dim if s.embed_positions else s.embed_dim for s in stacks]
        self.register_buffer("position_dims", _packed(widths))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        key = f"{prefix}position_dims"
        if key in state_dict and not state_dict[key].is_floating_point():  # up to version 0.1.0: numbers in int64
            state_dict[key] = _packed(state_dict[key].tolist())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        stacks = [getattr(self, stack.name) for stack in self.family.stacks]
        for stack, width in zip(stacks, self._position_dims(len(stacks)), strict=True):
            if width < stack.embed_dim:
                raise InputError(f"position_dims is {width} in the checkpoint: the subnet is {stack.embed_dim} wide")
            if stack.embed_positions is not None:
                stack.embed_positions.set_table_width(width)

    @classmethod
    def shared_options(cls) -> list[str]:
        """Return the names of the options that its supernet has, too."""
        return [option.name for option in fields(cls.config) if option.name[0] != "_" and option.name not in _OWN]

    @classmethod
    def command_options(cls, cfg: Any, task: str) -> list[str]:
        """Return the words of a command with ``task`` that give a supernet or a twin the options of ``cfg`` beside
        architecture and routing: all that differ from their defaults, but for dropout, which each training chooses."""
        defaults = {option.name: option.default for option in fields(cls.config)}
        words = []
        for name in cls.shared_options():
            value, default = getattr(cfg, name), defaults[name]
            if name == _IN_WEIGHTS or name.endswith("dropout") or value in (None, default):
                continue
            # an option of the task's has its default; one that follows from another option is always named
            if "${" in str(default):
                default = getattr(TASK_DATACLASS_REGISTRY.get(task), str(default)[:-1].removeprefix("${task."), None)
            if str(value) != str(default):
                option = f"--{name.replace('_', '-')}"
                words.append(option if value is True else f"{option} {value}")
        return words

    def _position_dims(self, count: int) -> tuple[int, ...]:
        try:
            return struct.unpack(f">{count}I", from_bits(self.position_dims))
        except (ValueError, struct.error):
            raise InputError("position_dims of the weights is unreadable: they are not of one subnet") from None

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> Self:
        """Build for fairseq.

        Raises:
            InputError: no subnet is given, or the subnet is invalid or has another family.
        """
        if not cfg.subnet:
            raise InputError(f"{cls.arch} needs its architecture: --subnet FILE (a YAML file of a subnet)")
        subnet = Subnet.from_text(cfg.subnet)
        record_in_config(cfg, "model", "subnet", subnet.key)
        return cls.from_subnet(cfg, subnet, *cls.dictionaries_of(task))

    @classmethod
    @torch.inference_mode(False)  # independent of the caller's mode: training may follow
    def from_subnet(
        cls, cfg: Any, subnet: Subnet, *dictionaries: Any, position_dims: Sequence[int] | None = None
    ) -> Self:
        """Build from a subnet and a dictionary for each stack, with fresh weights.

        Args:
            position_dims: see the class (default: the subnet's own widths).

        Raises:
            InputError: the subnet has another family, or a rate is out of range.
        """
        if subnet.family != cls.family:
            raise InputError(f"subnet is of family {subnet.family.name}: --arch {cls.arch} takes {cls.family.name}")
        check_rates(cfg, "dropout", "attention_dropout", "activation_dropout")
        kit = LayerKit(_layer, nn.LayerNorm, Linear, _maps)
        return cls(cfg, cls.build_stacks(cfg, subnet, dictionaries, kit, position_dims), subnet)
