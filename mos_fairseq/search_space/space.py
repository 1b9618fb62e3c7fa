"""`SearchSpace`: the choices of every elastic dimension, and what follows from them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.search_space._checks import (
    as_mapping,
    check_heads,
    check_keys,
    check_value,
    check_width,
    show,
)
from mos_fairseq.search_space._hat import is_hat_space, is_hat_subnet, space_from_hat
from mos_fairseq.search_space._keys import (
    CHOICE_KEYS,
    DECODER_LAYER_KEYS,
    ENCODER_LAYER_KEYS,
    HEAD_KEYS,
    KEYS,
    LAYER_KEYS,
    SCALAR_KEYS,
    WIDTH_KEYS,
    depth_key,
)
from mos_fairseq.search_space._schema import check_types
from mos_fairseq.search_space._yaml import load_json, load_yaml, save_yaml
from mos_fairseq.search_space.subnet import Subnet

_PRESETS = Path(__file__).with_name("presets")


@dataclass(frozen=True)
class SearchSpace:
    """The choices of each elastic dimension, the same for every layer (HAT, arXiv 2005.14187).

    Each searchable key holds a tuple of choices, kept in descending order, so that the order in a file never
    matters; units are those of `Subnet`. `qkv_dim` or `head_dim` is one number that all subnets share.

    Raises:
        InputError: no, repeated or non-positive choices, non-integers, a span outside -1, 1, 2, heads that do
            not divide `qkv_dim`, both or neither of `qkv_dim` and `head_dim`.
    """

    encoder_embed_dim: tuple[int, ...]
    decoder_embed_dim: tuple[int, ...]
    encoder_layers: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    encoder_ffn_embed_dim: tuple[int, ...]
    encoder_attention_heads: tuple[int, ...]
    decoder_ffn_embed_dim: tuple[int, ...]
    decoder_attention_heads: tuple[int, ...]
    decoder_ende_attention_heads: tuple[int, ...]
    decoder_arbitrary_ende_attn: tuple[int, ...]
    qkv_dim: int | None = None
    head_dim: int | None = None

    def __post_init__(self) -> None:
        for key in CHOICE_KEYS:
            object.__setattr__(self, key, _choices(getattr(self, key), key))
        check_width(self.qkv_dim, self.head_dim)
        for key in WIDTH_KEYS:
            if getattr(self, key) is not None:
                object.__setattr__(self, key, check_value(getattr(self, key), key))
        check_heads({key: getattr(self, key) for key in HEAD_KEYS}, self.qkv_dim)

    # --- reading and writing -------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> SearchSpace:
        """A space from plain lists. Raises `InputError` for a bad key, type or value."""
        data = as_mapping(mapping, "search space")
        check_keys(data, "search space")
        check_types(data, "search space")
        try:
            return cls(**data)
        except InputError as error:
            raise InputError(f"search space: {error}") from None

    @classmethod
    def from_spec(cls, spec: str | os.PathLike[str]) -> SearchSpace:
        """A space from a preset's name, a YAML file's path, or the text that `dumps` made.

        A file has our keys, or the `*-choice` keys of HAT's published files, among which may be options of HAT's
        training.

        Raises:
            InputError: `spec` is none of these, or the space in it is not valid.
        """
        text = os.fspath(spec).strip()
        if text.startswith("{"):
            return cls.from_dict(load_json(text, "search space"))
        if text in cls.preset_names():
            path = _PRESETS / f"{text}.yaml"
        elif os.path.isfile(text):  # unlike Path.is_file, never raises, whatever the text
            path = Path(text)
        else:
            presets = ", ".join(cls.preset_names())
            raise InputError(
                f"search space {show(text)}: no preset and no file of that name; presets: {presets}"
            )
        data = load_yaml(path)
        try:
            if is_hat_space(data):
                data = space_from_hat(data)
            elif is_hat_subnet(data):
                raise InputError("a subnet of HAT's, not a search space; give it as --subnet")
            return cls.from_dict(data)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @staticmethod
    def preset_names() -> list[str]:
        """The names of the packaged spaces, sorted."""
        return sorted(path.stem for path in _PRESETS.glob("*.yaml"))

    def to_dict(self) -> dict[str, int | list[int]]:
        """Plain ints and lists in the fixed order of the keys; only the width that is set."""
        result: dict[str, int | list[int]] = {key: list(getattr(self, key)) for key in CHOICE_KEYS}
        result.update({key: getattr(self, key) for key in WIDTH_KEYS if getattr(self, key) is not None})
        return result

    def dumps(self) -> str:
        """One line of canonical JSON, for checkpoints; `from_spec` reads it back."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the space as YAML, atomically. Raises `InputError` if the file cannot be written."""
        save_yaml(self.to_dict(), path)

    # --- what is in it -------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """The exact number of distinct subnets: values of absent layers do not count."""
        one_encoder_layer = prod(len(getattr(self, key)) for key in ENCODER_LAYER_KEYS)
        one_decoder_layer = prod(len(getattr(self, key)) for key in DECODER_LAYER_KEYS)
        encoders = sum(one_encoder_layer**depth for depth in self.encoder_layers)
        decoders = sum(one_decoder_layer**depth for depth in self.decoder_layers)
        return len(self.encoder_embed_dim) * encoders * len(self.decoder_embed_dim) * decoders

    def max(self, key: str) -> int:
        """The largest choice of `key` (a span's code for the span). `InputError` for an unknown key."""
        return self._choices_of(key)[0]

    def largest(self) -> Subnet:
        """The subnet with the largest choice of everything: depths, widths, heads and span."""
        return self._uniform(0)

    def smallest(self) -> Subnet:
        """The subnet with the smallest choice of everything."""
        return self._uniform(-1)

    def contains(self, subnet: Subnet) -> bool:
        """Whether every value of `subnet` is one of the choices."""
        try:
            self.check(subnet)
        except InputError:
            return False
        return True

    def check(self, subnet: Subnet) -> None:
        """Raise `InputError` with the field, the value and the choices unless `subnet` is in the space."""
        for key in CHOICE_KEYS:
            value, choices = getattr(subnet, key), getattr(self, key)
            for index, item in enumerate(value if key in LAYER_KEYS else (value,)):
                if item not in choices:
                    field = f"{key}[{index}]" if key in LAYER_KEYS else key
                    raise InputError(f"{field}={item} is not in the search space; choices: {_join(choices)}")
        for key in WIDTH_KEYS:
            value, fixed = getattr(subnet, key), getattr(self, key)
            if value != fixed:
                raise InputError(f"{key}={value} is not in the search space, which has {key}={fixed}")

    def iterate(self) -> Iterator[Subnet]:
        """Every distinct subnet once, in a fixed order from the largest. Lazy; meant for small spaces."""
        for encoder_embed, decoder_embed in product(self.encoder_embed_dim, self.decoder_embed_dim):
            for encoder in self._layer_values(ENCODER_LAYER_KEYS):
                for decoder in self._layer_values(DECODER_LAYER_KEYS):
                    embed = {"encoder_embed_dim": encoder_embed, "decoder_embed_dim": decoder_embed}
                    yield self._subnet(embed | encoder | decoder)

    def difference(self, other: SearchSpace) -> str:
        """One line with each key that differs and both its values, `''` if the spaces are equal."""

        def text(value: Any) -> str:
            return f"[{_join(value)}]" if isinstance(value, tuple) else str(value)

        pairs = [(key, getattr(self, key), getattr(other, key)) for key in KEYS]
        return "; ".join(
            f"{key}: {text(mine)} vs {text(theirs)}" for key, mine, theirs in pairs if mine != theirs
        )

    # --- drawing -------------------------------------------------------------------------------------------

    def sample(self, rng: random.Random) -> Subnet:
        """Draw a subnet as HAT does: each depth, width and present layer's value uniformly from its choices.

        This is not uniform over distinct subnets: a depth of 1 is drawn as often as a depth of 6, though far
        fewer subnets have it. One number of `rng` is used per value, in the fixed order of the keys.
        """

        def draw(key: str) -> int:
            choices = getattr(self, key)
            # Not rng.choice: Python promises the same sequence in every version for random() only.
            return choices[int(rng.random() * len(choices))]

        values: dict[str, Any] = {key: draw(key) for key in SCALAR_KEYS}
        for key in LAYER_KEYS:
            values[key] = tuple(draw(key) for _ in range(values[depth_key(key)]))
        return self._subnet(values)

    def sample_subnet(self, *seed_parts: object) -> Subnet:
        """Draw the subnet that belongs to `seed_parts`, for example `(seed, update_number, index)`.

        The same parts (their `str`) give the same subnet on every machine and process: the generator is
        seeded with a string, which Python hashes with SHA-512. The global random state is neither read nor
        changed.
        """
        return self.sample(random.Random("/".join(str(part) for part in seed_parts)))

    # --- internals -----------------------------------------------------------------------------------------

    def _subnet(self, values: Mapping[str, Any]) -> Subnet:
        return Subnet(**values, qkv_dim=self.qkv_dim, head_dim=self.head_dim)

    def _uniform(self, index: int) -> Subnet:
        """The subnet with the choice at `index` everywhere; choices are in descending order."""
        return self._subnet({key: getattr(self, key)[index] for key in CHOICE_KEYS})

    def _choices_of(self, key: str) -> tuple[int, ...]:
        if key in CHOICE_KEYS:
            return getattr(self, key)
        if key in WIDTH_KEYS and getattr(self, key) is not None:
            return (getattr(self, key),)
        raise InputError(f"{show(key)} is not a key of this search space; keys: {_join(self.to_dict())}")

    def _layer_values(self, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """The depth and per-layer values of one side, over all depths."""
        depth_name = depth_key(keys[0])
        one_layer = list(product(*(getattr(self, key) for key in keys)))
        for depth in getattr(self, depth_name):
            for layers in product(one_layer, repeat=depth):
                yield {depth_name: depth, **dict(zip(keys, zip(*layers, strict=True), strict=True))}


def _choices(value: Any, key: str) -> tuple[int, ...]:
    """The choices of one key, checked, in descending order."""
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{key}: expected a list of integers, got {show(value)}")
    if not value:
        raise InputError(f"{key}: the list of choices is empty, at least one is needed")
    numbers = [check_value(item, key) for item in value]
    repeated = sorted({number for number in numbers if numbers.count(number) > 1})
    if repeated:
        raise InputError(
            f"{key}: duplicate choice {_join(repeated)} in {show(numbers)}, each is allowed once"
        )
    return tuple(sorted(numbers, reverse=True))


def _join(values: Any) -> str:
    return ", ".join(str(value) for value in values)
