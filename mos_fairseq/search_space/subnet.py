"""`Subnet`: one architecture of a search space, as an immutable value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mos_fairseq.errors import InputError
from mos_fairseq.search_space._checks import (
    check_alternatives,
    check_constants,
    check_heads,
    check_keys,
    check_value,
    show,
)
from mos_fairseq.search_space._hat import HAT_QKV_DIM, is_hat_space, is_hat_subnet, subnet_from_hat
from mos_fairseq.search_space._values import FamilyValues
from mos_fairseq.search_space._yaml import load_json, load_yaml
from mos_fairseq.search_space.family import Dimension, Family, Stack
from mos_fairseq.sizes import LayerSizes

if TYPE_CHECKING:
    from mos_fairseq.search_space.space import SearchSpace


class Subnet(FamilyValues):
    """One architecture, canonical and hashable.

    In canonical form, absent layers have no values: a list longer than the number of layers is cut. One number for a
    per-layer key is repeated for every layer. So equal architectures compare and hash equal.

    Widths are in features, depths in layers, heads in heads per layer. A cross-attention span is HAT's code: -1, 1, 2 =
    the last 1, 2, 3 encoder layers. Exactly one of `qkv_dim` (width of the attention projections, split among the
    heads) and `head_dim` (width of one head) is set, unless every layer has its own width (`encoder_qkv_dim`,
    `decoder_qkv_dim`).

    Args:
        family: the family of the keys, or its name.
        values: by key; numbers for scalars, one number or one per layer for per-layer keys.

    Raises:
        InputError: a key is unknown or missing; a value is no integer, not positive, no span code; a list is shorter
            than the number of layers; heads do not divide the width that they split; both or neither of `qkv_dim` and
            `head_dim` are set.
    """

    what = "subnet"

    def _check(self, family: Family, values: dict[str, Any]) -> dict[str, Any]:
        checked: dict[str, Any] = {}
        for dimension in family.dimensions:
            key = dimension.key
            if key not in values:
                continue
            if (stack := family.owners.get(key)) is None:
                checked[key] = check_value(values[key], dimension)
            else:
                checked[key] = _per_layer(values[key], dimension, stack, checked[stack.depth.key])
        check_alternatives(family, checked)
        checked |= check_constants(family, values)
        check_heads(family, checked)
        return checked

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None) -> Subnet:
        """Return a subnet from plain values; keys absent from `mapping` are taken from `defaults`.

        Constants (`qkv_dim`, `head_dim`) in the defaults are used only if `mapping` sets none.

        Raises:
            InputError: a key is unknown or missing, or a value is invalid.
        """
        family, data = cls._split(mapping)
        constant_given = any(data.get(key) is not None for key in family.constants)
        for key, value in (defaults or {}).items():
            if key not in family.constants:
                data.setdefault(key, value)
            elif not constant_given:
                data[key] = value
        check_keys(data, cls.what, family)  # keys may be no text
        return cls(family, **data)

    @cached_property
    def key(self) -> str:
        """Canonical compact JSON: two subnets are equal if and only if their keys are."""
        return self.dumps()

    def layers(self, stack: str) -> tuple[LayerSizes, ...]:
        """Return the sizes of the present layers of a stack, in order. A cross-attention span is at most the number of
        layers that it reads (the arch encoding has the chosen value)."""
        return self._layers[stack]

    @property
    def all_layers(self) -> tuple[LayerSizes, ...]:
        """Return the sizes of the layers of all stacks."""
        return tuple(layer for stack in self.family.stacks for layer in self.layers(stack.name))

    @cached_property
    def _layers(self) -> dict[str, tuple[LayerSizes, ...]]:
        return {stack.name: self.family.layers(stack, self.values) for stack in self.family.stacks}

    @property
    def cross_spans(self) -> tuple[int, ...]:
        """For each layer with cross-attention, the number of outputs that it attends to, at most as many as exist."""
        spans = (layer.cross_span for layer in self.all_layers)
        return tuple(span for span in spans if span)

    def width(self, stack: str) -> int:
        """Return the width of a stack's embeddings and output, and of its layers unless they have their own."""
        return self.values[self.family.stack(stack).width.key]

    def maps(self, stack: str) -> tuple[tuple[int, int] | None, ...]:
        """Return the widths of the linear maps around the layers of a stack, see :meth:`Family.maps`."""
        return self.family.maps(self.family.stack(stack), self.values)

    @property
    def amounts(self) -> dict[str, int | tuple[int, ...]]:
        """Return the quantity of each dimension in use, in the arch encoding's order.

        Codes become quantities. Spans count the outputs that exist, and heads those that a layer has."""
        found: dict[str, int | tuple[int, ...]] = {}
        for dimension in self.encoded:
            stack = self.family.owners.get(dimension.key)
            if stack is None:
                found[dimension.key] = dimension.amount(self.values[dimension.key])
            else:
                found[dimension.key] = tuple(stack.amounts(layer)[dimension.key] for layer in self.layers(stack.name))
        return found

    @classmethod
    def load(cls, path: str | os.PathLike[str], space: SearchSpace | None = None) -> Subnet:
        """Read a subnet file: our keys, or the `*-subtransformer` keys of HAT's published files, which may also hold
        options of HAT's training.

        A file without `qkv_dim` and `head_dim` takes it from `space`. Without a space, HAT's files get 512 (the width
        of all its published spaces) and ours are refused. `SearchSpace.check` checks whether the subnet is in
        `space`; this function does not.

        Raises:
            InputError: the file cannot be read, or describes no valid subnet; the message starts with the path.
        """
        data = load_yaml(path)
        defaults = defaults_of(space)
        try:
            if is_hat_subnet(data):
                data = subnet_from_hat(data)
                defaults = defaults or {"qkv_dim": HAT_QKV_DIM}
            elif is_hat_space(data):
                raise InputError("a HAT search space, not a subnet; give it as --search-space")
            return cls.from_dict(data, defaults=defaults)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def from_text(cls, text: str) -> Subnet:
        """Return a subnet from a file's path, or from inline JSON in braces. Raises InputError."""
        return cls.from_dict(load_json(text, cls.what)) if text.lstrip().startswith("{") else cls.load(text)

    def summary(self) -> str:
        """Return one line for logs, for example `enc 6x512 ffn 3072*6 heads 8*6 | dec 2x640 ... | qkv 512`."""
        parts, amounts = [], self.amounts
        for stack in self.family.stacks:
            sizes = []
            for dimension in stack.layer_dimensions:
                if dimension.key in self.values:
                    chosen: Any = self.values[dimension.key] if dimension.codes else amounts[dimension.key]
                    sizes.append(f"{dimension.label} {_runs([dimension.amount(value) for value in chosen])}")
            size = f"{stack.label} {self.values[stack.depth.key]}x{self.values[stack.width.key]}"
            if stack.hidden is not None and stack.hidden.key in self.values:
                size += f" hidden {self.values[stack.hidden.key]}"
            parts.append(" ".join([size, *sizes]))
        parts += [f"{key.removesuffix('_dim')} {value}" for key, value in self.constants.items()]
        return " | ".join(parts)


def _per_layer(value: Any, dimension: Dimension, stack: Stack, layers: int) -> tuple[int, ...]:
    """Return the values of `layers` layers from one number or a list that is long enough."""
    key = dimension.key
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return (check_value(value, dimension),) * layers
    if len(value) < layers:
        raise InputError(
            f"{key}: got {len(value)} values {show(list(value))}, {stack.depth.key}={layers} needs {layers}"
        )
    # Values of absent layers are dropped after a check: nonsense in a file should not pass unnoticed.
    checked = [check_value(item, dimension, f"{key}[{index}]") for index, item in enumerate(value)]
    return tuple(checked[:layers])


def defaults_of(space: SearchSpace | None) -> dict[str, Any]:
    """Return defaults for `Subnet.from_dict`: values fixed by `space`, which a subnet's file may leave out."""
    return {} if space is None else dict(space.constants)


def _runs(values: Sequence[int]) -> str:
    """Return per-layer values with counted repetitions, such as `3072*4,1024*2`."""
    runs = [(value, len(list(group))) for value, group in groupby(values)]
    return ",".join(str(value) if count == 1 else f"{value}*{count}" for value, count in runs)
