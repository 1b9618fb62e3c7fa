"""`Subnet`: one architecture of a search space, as an immutable value."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mos_fairseq.errors import InputError
from mos_fairseq.search_space._checks import (
    as_mapping,
    check_heads,
    check_keys,
    check_value,
    check_width,
    named_width,
    show,
)
from mos_fairseq.search_space._hat import HAT_QKV_DIM, is_hat_space, is_hat_subnet, subnet_from_hat
from mos_fairseq.search_space._keys import (
    CHOICE_KEYS,
    HEAD_KEYS,
    LAYER_KEYS,
    SCALAR_KEYS,
    SPAN_LAYERS,
    WIDTH_KEYS,
    depth_key,
)
from mos_fairseq.search_space._yaml import load_yaml, save_yaml

if TYPE_CHECKING:
    from mos_fairseq.search_space.space import SearchSpace


@dataclass(frozen=True)
class Subnet:
    """One architecture (the elastic dimensions of HAT, arXiv 2005.14187), canonical and hashable.

    Canonical means that absent layers carry no values: a list longer than the number of layers is cut, one
    number given for a per-layer key is repeated for every layer, so equal architectures compare and hash
    equal.

    Widths are in features, depths in layers, heads in heads per layer. `decoder_arbitrary_ende_attn` is HAT's
    code of the cross-attention span: -1, 1, 2 = the last 1, 2, 3 encoder layers. Exactly one of `qkv_dim`
    (width of the attention projections, split among the heads) and `head_dim` (width of one head) is set.

    Raises:
        InputError: a value is no integer, not positive, no span code; a list is shorter than the number of
            layers; heads do not divide `qkv_dim`; both or neither of `qkv_dim` and `head_dim` are set.
    """

    encoder_embed_dim: int
    decoder_embed_dim: int
    encoder_layers: int
    decoder_layers: int
    encoder_ffn_embed_dim: tuple[int, ...]
    encoder_attention_heads: tuple[int, ...]
    decoder_ffn_embed_dim: tuple[int, ...]
    decoder_attention_heads: tuple[int, ...]
    decoder_ende_attention_heads: tuple[int, ...]
    decoder_arbitrary_ende_attn: tuple[int, ...]
    qkv_dim: int | None = None
    head_dim: int | None = None

    def __post_init__(self) -> None:
        def put(key: str, value: Any) -> None:
            object.__setattr__(self, key, value)  # frozen: this is the one place that may

        for key in SCALAR_KEYS:
            put(key, check_value(getattr(self, key), key))
        for key in LAYER_KEYS:
            put(key, _per_layer(getattr(self, key), key, getattr(self, depth_key(key))))
        check_width(self.qkv_dim, self.head_dim)
        for key in WIDTH_KEYS:
            if getattr(self, key) is not None:
                put(key, check_value(getattr(self, key), key))
        check_heads({key: getattr(self, key) for key in HEAD_KEYS}, self.qkv_dim)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None) -> Subnet:
        """A subnet from plain values; keys absent from `mapping` are taken from `defaults`.

        `qkv_dim` and `head_dim` of the defaults are used only if `mapping` sets neither.

        Raises:
            InputError: an unknown or a missing key, or a bad value.
        """
        data = as_mapping(mapping, "subnet")
        width_given = named_width(data)
        for key, value in (defaults or {}).items():
            if key not in WIDTH_KEYS:
                data.setdefault(key, value)
            elif not width_given:
                data[key] = value
        check_keys(data, "subnet")
        return cls(**data)

    def to_dict(self) -> dict[str, int | list[int]]:
        """Plain ints and lists in the fixed order of the keys; only the width that is set."""
        result: dict[str, int | list[int]] = {}
        for key in (*CHOICE_KEYS, *WIDTH_KEYS):
            value = getattr(self, key)
            if value is not None:
                result[key] = list(value) if isinstance(value, tuple) else value
        return result

    @cached_property
    def key(self) -> str:
        """Canonical compact JSON: equal subnets have equal keys, and different ones different keys."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @property
    def cross_spans(self) -> tuple[int, ...]:
        """How many encoder layers each decoder layer attends to, never more than there are.

        Clamped, because an encoder of 2 layers has no third output to attend to: repeating one would only
        double its weight in the softmax and the work. (The arch encoding counts the unclamped span.)
        """
        return tuple(min(SPAN_LAYERS[code], self.encoder_layers) for code in self.decoder_arbitrary_ende_attn)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the subnet as YAML, atomically. Raises `InputError` if the file cannot be written."""
        save_yaml(self.to_dict(), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], space: SearchSpace | None = None) -> Subnet:
        """Read a subnet file: our keys, or the `*-subtransformer` keys of HAT's published files, among which may be
        options of HAT's training.

        A file that names neither `qkv_dim` nor `head_dim` takes it from `space`; without a space, HAT's files
        get 512 (the width of all its published spaces) and our own are refused. Whether the subnet lies in
        `space` is not checked here: see `SearchSpace.check`.

        Raises:
            InputError: the file cannot be read, or describes no valid subnet; the message starts with the
                path.
        """
        data = load_yaml(path)
        defaults = _width_of(space)
        try:
            if is_hat_subnet(data):
                data = subnet_from_hat(data)
                defaults = defaults or {"qkv_dim": HAT_QKV_DIM}
            elif is_hat_space(data):
                raise InputError("a search space of HAT's, not a subnet; give it as --search-space")
            return cls.from_dict(data, defaults=defaults)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def summary(self) -> str:
        """One line for logs, for example `enc 6x512 ffn 3072*6 heads 8*6 | dec 2x640 ... | qkv 512`."""
        encoder = (
            f"enc {self.encoder_layers}x{self.encoder_embed_dim} ffn {_runs(self.encoder_ffn_embed_dim)} "
            f"heads {_runs(self.encoder_attention_heads)}"
        )
        decoder = (
            f"dec {self.decoder_layers}x{self.decoder_embed_dim} ffn {_runs(self.decoder_ffn_embed_dim)} "
            f"heads {_runs(self.decoder_attention_heads)} cross {_runs(self.decoder_ende_attention_heads)} "
            f"span {_runs(tuple(SPAN_LAYERS[code] for code in self.decoder_arbitrary_ende_attn))}"
        )
        width = f"head {self.head_dim}" if self.qkv_dim is None else f"qkv {self.qkv_dim}"
        return f"{encoder} | {decoder} | {width}"


def _per_layer(value: Any, key: str, layers: int) -> tuple[int, ...]:
    """The values of `layers` layers from one number or a list that is long enough."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return (check_value(value, key),) * layers
    if len(value) < layers:
        raise InputError(
            f"{key}: got {len(value)} values {show(list(value))}, {depth_key(key)}={layers} needs {layers}"
        )
    # Values of absent layers are dropped, but checked first: nonsense in a file should not pass unseen.
    checked = [check_value(item, key, f"{key}[{index}]") for index, item in enumerate(value)]
    return tuple(checked[:layers])


def _width_of(space: SearchSpace | None) -> dict[str, int]:
    """The attention width that `space` fixes, as defaults for `Subnet.from_dict`."""
    if space is None:
        return {}
    return {key: value for key in WIDTH_KEYS if (value := getattr(space, key)) is not None}


def _runs(values: tuple[int, ...]) -> str:
    """`3072*4,1024*2`: per-layer values with their repetitions counted."""
    runs = [(value, len(list(group))) for value, group in groupby(values)]
    return ",".join(str(value) if count == 1 else f"{value}*{count}" for value, count in runs)
