"""The types of a search-space file, as an OmegaConf structured config."""

from collections.abc import Mapping
from dataclasses import make_dataclass
from functools import cache
from typing import Any, Optional

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mos_fairseq.errors import InputError
from mos_fairseq.search_space._checks import show
from mos_fairseq.search_space.family import Family

_OPTIONAL_INT = Optional[int]  # noqa: UP045 - every version of OmegaConf supports this form


@cache
def _schema(key: str, constant: bool) -> type:
    """Return the structure of one key: OmegaConf copies all of it at every merge."""
    return make_dataclass("_KeySchema", [(key, _OPTIONAL_INT, None) if constant else (key, list[int], MISSING)])


def check_types(data: Mapping[str, Any], what: str, family: Family) -> None:
    """Check that each dimension has a list of integers, and a constant an integer or nothing.

    The keys are already checked. Values are merged one by one, so that a message can name the key and value.
    """
    for key, value in data.items():
        allowed = "an integer" if key in family.constants else "a list of integers"
        items = value if isinstance(value, (list, tuple)) else [value]
        # plain integers are fine; OmegaConf takes milliseconds to find that out
        if isinstance(value, (list, tuple)) != (key in family.constants) and all(type(item) is int for item in items):
            continue
        problem = f"{what}: {key}: expected {allowed}, got {show(value)}"
        # OmegaConf would convert the string "640" to an int, resolve "${...}" as an interpolation, and accept lists
        # of lists.
        if any(isinstance(item, (str, bytes, list, tuple, dict)) for item in items):
            raise InputError(problem)
        try:
            OmegaConf.merge(_schema(key, key in family.constants), {key: value})
        except (OmegaConfBaseException, ValueError, TypeError):
            raise InputError(problem) from None
