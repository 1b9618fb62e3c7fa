"""Checks shared by `Subnet` and `SearchSpace`: each raises `InputError` with one line."""

import operator
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from mos_fairseq.errors import InputError
from mos_fairseq.search_space.family import Dimension, Family

_MOST = 2**63 - 1
_SHORT = reprlib.Repr()
_SHORT.maxstring = 200  # long enough for whole paths


def show(value: Any) -> str:
    """Return a value on one short line, whatever the file contained."""
    return " ".join(_SHORT.repr(value).split())


def as_int(value: Any, field: str) -> int:
    """Return `value` as a plain int. Booleans, floats and strings are refused, not rounded or parsed."""
    if not isinstance(value, (bool, str, bytes)):
        try:
            number = operator.index(value)  # accepts numpy's integers, but no floats
        except TypeError:
            pass
        else:
            if abs(number) > _MOST:
                raise InputError(f"{field}: got a number of {number.bit_length()} bits, allowed are up to {_MOST:,}")
            return number
    raise InputError(f"{field}: expected an integer, got {show(value)}")


def check_value(value: Any, dimension: Dimension, field: str | None = None) -> int:
    """Check one value of a dimension: a positive integer, or one of its codes. Messages call it `field`."""
    field = field or dimension.key
    number = as_int(value, field)
    if dimension.codes is not None:
        if number not in dimension.codes:
            raise InputError(f"{field}: got {number}, allowed are {dimension.allowed}")
    elif number < 1:
        raise InputError(f"{field}: got {number}, allowed are positive integers")
    elif dimension.most is not None and number > dimension.most:
        raise InputError(f"{field}: got {show(number)}, allowed are 1 to {dimension.most} layers")
    return number


def check_constants(family: Family, values: Mapping[str, Any]) -> dict[str, int]:
    """Return the checked constants in `values`: exactly one; none if every attention has an elastic q; none or one if
    the family does not need any."""
    given = {key: values[key] for key in family.constants if values.get(key) is not None}
    names = " and ".join(family.constants)
    attentions = [block for stack in family.stacks for block in stack.attentions]
    elastic = [block.inner.key for block in attentions if block.inner is not None and block.inner.key in values]
    if len(elastic) == len(attentions):
        if given:
            key, value = next(iter(given.items()))
            raise InputError(f"{key}={show(value)} has no effect: {', '.join(dict.fromkeys(elastic))} set it by layer")
    elif len(given) > 1 or not (given or family.splits_width):
        rule, verb = ("at most", "allowed") if family.splits_width else ("exactly", "needed")
        found = " and ".join(f"{key}={show(value)}" for key, value in given.items()) or "neither"
        raise InputError(f"{rule} one of {names} is {verb}, got {found}")
    return {key: check_value(value, Dimension(key)) for key, value in given.items()}


def check_alternatives(family: Family, values: Mapping[str, Any]) -> None:
    """Check keys that replace each other: at most one has a value, and in some groups one must."""
    for keys, needed in family.alternatives:
        given = [key for key in keys if key in values]
        if len(given) > 1 or (needed and not given):
            rule, verb = ("exactly", "needed") if needed else ("at most", "allowed")
            found = "both" if given else "neither"
            raise InputError(f"{rule} one of {' and '.join(keys)} is {verb}, got {found}")


def check_ranks(family: Family, values: Mapping[str, Any]) -> None:
    """Check that no choice of a rank is higher than the largest matrix may have."""
    for stack in family.stacks:
        block = stack.feed_forward
        if block.rank is None or block.rank.key not in values:
            continue
        width = max(values[stack.inside(values).key])
        largest = {
            dimension.key: (max(values[dimension.key]),) for dimension in block.dimensions if dimension.key in values
        }
        inner = block.inner(largest, 0, width)
        if (rank := max(values[block.rank.key])) > min(width, inner):
            raise InputError(
                f"{block.rank.key}: {rank} is more than {min(width, inner)}, the rank of the largest matrix"
            )


def check_heads(family: Family, values: Mapping[str, Any]) -> None:
    """Check that each number of heads divides q: in a subnet layer by layer, in a space for every combination. In a
    layer that limits its heads to its width, one must fit."""
    fixed, per_head = family.constants
    for stack in family.stacks:
        inside = stack.inside(values).key
        for block in stack.attentions:
            inner = block.inner.key if block.inner is not None and block.inner.key in values else fixed
            if per_head in values and inner not in values:  # q follows from the number of heads
                widths = values[inside] if isinstance(values[inside], tuple) else (values[inside],)
                if block.within_width and min(widths) < values[per_head]:
                    raise InputError(f"{inside}: {min(widths)} is less than {per_head}={values[per_head]}, one head")
                continue
            inner = inner if inner in values else inside
            for heads, q, where in _pairs(values, block.heads.key, inner, stack.depth.key):
                if q % heads:
                    raise InputError(f"{block.heads.key}: {heads} heads do not divide {inner}{where}={q}")


def _pairs(values: Mapping[str, Any], heads: str, inner: str, depth: str) -> Iterator[tuple[int, int, str]]:
    """Yield (number of heads, q, position of q) of all pairs that can occur in one attention."""
    found = values[inner]
    if not isinstance(found, tuple):
        yield from ((number, found, "") for number in values[heads])
    elif isinstance(values[depth], tuple):  # choices of a space
        yield from ((number, q, "") for number in values[heads] for q in found)
    else:
        yield from ((n, q, f"[{i}]") for i, (n, q) in enumerate(zip(values[heads], found, strict=True)))


def as_mapping(data: Any, what: str) -> dict[str, Any]:
    """Return `data` (a mapping or an OmegaConf node) as a plain dict; interpolations stay unresolved."""
    if OmegaConf.is_config(data):
        data = OmegaConf.to_container(data, resolve=False)
    if not isinstance(data, Mapping):
        raise InputError(f"{what}: expected keys and values, got {show(data)}")
    return dict(data)


def check_keys(data: Mapping[str, Any], what: str, family: Family) -> None:
    """Check that every dimension that is not optional is present, and no unknown key. Constants: `check_constants`."""
    unknown = [key for key in data if key not in family.keys]
    start = f"{what}: " if what else ""
    if unknown:
        names = ", ".join(key if isinstance(key, str) and len(key) < 60 else show(key) for key in unknown[:5])
        raise InputError(f"{start}unknown key {' '.join(names.split())}; allowed are {', '.join(family.keys)}")
    missing = [d.key for d in family.dimensions if d.key not in data and not d.optional]
    if missing:
        raise InputError(f"{start}missing key {', '.join(missing)}")
