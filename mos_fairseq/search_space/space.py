"""`SearchSpace`: the choices of every elastic dimension, and operations on them."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.search_space._checks import (
    check_alternatives,
    check_constants,
    check_heads,
    check_keys,
    check_ranks,
    check_value,
    show,
)
from mos_fairseq.search_space._hat import is_hat_space, is_hat_subnet, space_from_hat
from mos_fairseq.search_space._schema import check_types
from mos_fairseq.search_space._values import FAMILY_KEY, FamilyValues
from mos_fairseq.search_space._yaml import load_json, load_yaml
from mos_fairseq.search_space.family import Dimension, Family, Stack
from mos_fairseq.search_space.subnet import Subnet

_PRESETS = Path(__file__).with_name("presets")


class SearchSpace(FamilyValues):
    """The choices of each elastic dimension, the same for every layer (HAT, arXiv 2005.14187).

    Each searchable key has a tuple of choices in descending order, so the order in a file does not matter; units are
    those of `Subnet`. `qkv_dim` or `head_dim` is one number for all subnets.

    Raises:
        InputError: a key is unknown or missing; choices are missing, repeated, not positive or no integers; a span is
            not -1, 1 or 2; heads do not divide the width that they split; both or neither of `qkv_dim` and `head_dim`
            are set.
    """

    what = "search space"

    def _check(self, family: Family, values: dict[str, Any]) -> dict[str, Any]:
        checked: dict[str, Any] = {d.key: _choices(values[d.key], d) for d in family.dimensions if d.key in values}
        check_alternatives(family, checked)
        checked |= check_constants(family, values)
        check_heads(family, checked)
        return checked

    # --- reading and writing -------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> SearchSpace:
        """Return a space from plain lists.

        Raises:
            InputError: a key, type or value is bad, or a rank is higher than the largest matrix can have.
        """
        family, data = cls._split(mapping)
        check_keys(data, cls.what, family)
        check_types(data, cls.what, family)
        try:
            space = cls(family, **data)
            check_ranks(family, space.values)  # here, because a part of a space may have narrower matrices only
            return space
        except InputError as error:
            raise InputError(f"{cls.what}: {error}") from None

    @classmethod
    def from_spec(cls, spec: str | os.PathLike[str]) -> SearchSpace:
        """Return a space from a preset's name, a YAML file's path, or the text of `dumps`.

        A file has our keys, or the `*-choice` keys of HAT's published files, which may also hold options of HAT's
        training.

        Raises:
            InputError: `spec` is none of these, or its space is not valid.
        """
        text = os.fspath(spec).strip()
        if text.startswith("{"):
            return cls.from_dict(load_json(text, "search space"))
        if text in cls.preset_names():
            path = _PRESETS / f"{text}.yaml"
        elif os.path.isfile(text):  # unlike Path.is_file, it never raises
            path = Path(text)
        else:
            presets = ", ".join(cls.preset_names())
            raise InputError(f"search space {show(text)}: no preset and no file of that name; presets: {presets}")
        data = load_yaml(path)
        try:
            if is_hat_space(data):
                data = space_from_hat(data)
            elif is_hat_subnet(data):
                raise InputError("a HAT subnet, not a search space; give it as --subnet")
            return cls.from_dict(data)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def preset_names(cls, family: Family | None = None) -> list[str]:
        """Return the sorted names of the packaged spaces of all families, or of one."""
        names = sorted(path.stem for path in _PRESETS.glob("*.yaml"))
        return names if family is None else [name for name in names if cls.from_spec(name).family == family]

    # --- what is in it -------------------------------------------------------------------------------------

    @cached_property
    def size(self) -> int:
        """The exact number of distinct subnets: values of absent layers do not count."""
        total = prod(len(self.values[key]) for key in self._widths)
        for stack in self.family.stacks:
            one_layer = prod(len(self.values[d.key]) for d in self._per_layer(stack))
            total *= sum(one_layer**depth for depth in self.values[stack.depth.key])
        return total

    def max(self, key: str) -> int:
        """Return the largest choice of `key` (for a span, its code). Raises `InputError` for an unknown key."""
        if key not in self.values:
            keys = _join(key for key in self.values)
            raise InputError(f"{show(key)} is not a key of this search space; keys: {keys}")
        value = self.values[key]
        return value[0] if isinstance(value, tuple) else value

    def largest(self) -> Subnet:
        """Return the subnet with the largest choice of everything: depths, widths, heads and span."""
        return self._uniform(0)

    def smallest(self) -> Subnet:
        """Return the subnet with the smallest choice of everything."""
        return self._uniform(-1)

    def contains(self, subnet: Subnet) -> bool:
        """Return whether every value of `subnet` is one of the choices."""
        try:
            self.check(subnet)
        except InputError:
            return False
        return True

    def check(self, subnet: Subnet) -> None:
        """Raise `InputError` with the field, the value and the choices unless `subnet` is in the space."""
        if not isinstance(subnet, Subnet):
            raise InputError(f"subnet is {subnet!r}: allowed is a Subnet, as resolve_subnet(SPEC, space) returns")
        if subnet.family != self.family:
            raise InputError(f"{FAMILY_KEY}={subnet.family.name} is not the search space's, {self.family.name}")
        for dimension in self.family.dimensions:
            key, owned = dimension.key, dimension.key in self.family.owners
            value, choices = getattr(subnet, key), getattr(self, key)
            if (value is None) != (choices is None):
                which, other = ("subnet", "search space") if choices is None else ("search space", "subnet")
                raise InputError(f"{key} is given in the {which} only, not in the {other}")
            for index, item in enumerate(() if value is None else value if owned else (value,)):
                if item not in choices:
                    field = f"{key}[{index}]" if owned else key
                    raise InputError(f"{field}={item} is not in the search space; choices: {_join(choices)}")
        for key in self.family.constants:
            value, fixed = getattr(subnet, key), getattr(self, key)
            if value != fixed:
                raise InputError(f"{key}={value} is not in the search space, which has {key}={fixed}")

    def narrowed(self, choices: Mapping[str, Iterable[int]]) -> SearchSpace:
        """Return the part of the space whose subnets have only these of the choices of some keys.

        Raises:
            InputError: a key is no elastic dimension of the space, has no choice, or has one that the space lacks.
        """
        elastic = [dimension.key for dimension in self.dimensions]
        changes = {}
        for key, kept in choices.items():
            if key not in elastic:
                raise InputError(f"{show(key)} is not an elastic dimension of this space, which has {_join(elastic)}")
            changes[key] = list(kept)
            for value in changes[key]:
                if value not in self.values[key]:
                    raise InputError(f"{key}={value} is not in the search space; choices: {_join(self.values[key])}")
        return self.replace(**changes)

    def iterate(self) -> Iterator[Subnet]:
        """Yield every distinct subnet once, lazily, in a fixed order from the largest. Meant for small spaces."""

        def stacks(rest: tuple[Stack, ...], found: dict[str, Any]) -> Iterator[Subnet]:
            if not rest:
                yield self._subnet(found)
                return
            for layers in self._layer_values(rest[0]):
                yield from stacks(rest[1:], found | layers)

        for chosen in product(*(self.values[key] for key in self._widths)):
            yield from stacks(self.family.stacks, dict(zip(self._widths, chosen, strict=True)))

    def difference(self, other: SearchSpace) -> str:
        """Return one line with each key that differs and both its values; `''` if the spaces are equal."""

        def text(value: Any) -> str:
            return f"[{_join(value)}]" if isinstance(value, tuple) else str(value)

        mine, theirs = ({FAMILY_KEY: s.family.name, **s.values} for s in (self, other))
        keys = [FAMILY_KEY, *dict.fromkeys((*self.family.keys, *other.family.keys))]
        pairs = [(key, mine.get(key), theirs.get(key)) for key in keys]
        return "; ".join(f"{key}: {text(a)} vs {text(b)}" for key, a, b in pairs if a != b)

    # --- drawing -------------------------------------------------------------------------------------------

    def sample(self, rng: random.Random, tilt: float | None = None) -> Subnet:
        """Draw a subnet as HAT does: each depth, width and present layer's value uniformly from its choices.

        This is not uniform over distinct subnets: a depth of 1 is drawn as often as a depth of 6, although far fewer
        subnets have it. Each value uses one number of `rng`, in the fixed order of the keys.

        Args:
            tilt: from 0 (every value is the largest) to 1 (every value is the smallest). The index of a value among its
                n choices, in descending order, is then binomial (n - 1 trials). Over uniform tilts in [0, 1] each value
                is still uniform, but the values of a subnet are large or small together, so that costs cover their
                whole range.
        """

        def draw(key: str) -> int:
            choices = self.values[key]
            # Not rng.choice: Python guarantees the same sequence in every version for random() only.
            number = rng.random()
            return choices[int(number * len(choices)) if tilt is None else _binomial(number, len(choices) - 1, tilt)]

        values: dict[str, Any] = {}
        for dimension in self.dimensions:
            stack = self.family.owners.get(dimension.key)
            if stack is None:
                values[dimension.key] = draw(dimension.key)
            else:
                values[dimension.key] = tuple(draw(dimension.key) for _ in range(values[stack.depth.key]))
        return self._subnet(values)

    def sample_subnet(self, *seed_parts: object) -> Subnet:
        """Return the subnet drawn from the seed `seed_parts`, for example `(seed, update_number, index)`.

        The same parts (their `str`) give the same subnet on every machine and in every process: the generator is seeded
        with a string, which Python hashes with SHA-512. The global random state is neither read nor changed.
        """
        return self.sample(random.Random("/".join(str(part) for part in seed_parts)))

    # --- internals -----------------------------------------------------------------------------------------

    def _subnet(self, values: Mapping[str, Any]) -> Subnet:
        return Subnet(self.family, **values, **self.constants)

    def _uniform(self, index: int) -> Subnet:
        """Return the subnet with the choice at `index` everywhere; choices are in descending order."""
        return self._subnet({d.key: self.values[d.key][index] for d in self.dimensions})

    @property
    def _widths(self) -> list[str]:
        return [d.key for d in self.family.widths if d.key in self.values]

    def _per_layer(self, stack: Stack) -> list[Dimension]:
        return [d for d in stack.layer_dimensions if d.key in self.values]

    def _layer_values(self, stack: Stack) -> Iterator[dict[str, Any]]:
        """Yield the depth and per-layer values of one stack, over all depths."""
        keys = [d.key for d in self._per_layer(stack)]
        one_layer = list(product(*(self.values[key] for key in keys)))
        for depth in self.values[stack.depth.key]:
            for layers in product(one_layer, repeat=depth):
                yield {stack.depth.key: depth, **dict(zip(keys, zip(*layers, strict=True), strict=True))}


def _binomial(number: float, trials: int, chance: float) -> int:
    """Return the binomial value at the quantile ``number``."""
    for value in range(trials):
        number -= math.comb(trials, value) * chance**value * (1 - chance) ** (trials - value)
        if number < 0:
            return value
    return trials


def _choices(value: Any, dimension: Dimension) -> tuple[int, ...]:
    """Return the checked choices of one dimension, in descending order."""
    key = dimension.key
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{key}: expected a list of integers, got {show(value)}")
    if not value:
        raise InputError(f"{key}: the list of choices is empty, at least one is needed")
    numbers = [check_value(item, dimension) for item in value]
    repeated = sorted({number for number in numbers if numbers.count(number) > 1})
    if repeated:
        raise InputError(f"{key}: duplicate choice {_join(repeated)} in {show(numbers)}, each is allowed once")
    return tuple(sorted(numbers, reverse=True))


def _join(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)
