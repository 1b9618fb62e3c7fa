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

_OPTIONAL_INT = Optional[int]  # noqa: UP045 - the form that every version of OmegaConf understands


@cache
def _schema(family: Family) -> type:
    lists = [(dimension.key, list[int], MISSING) for dimension in family.dimensions]
    return make_dataclass("_SpaceSchema", lists + [(key, _OPTIONAL_INT, None) for key in family.constants])


def check_types(data: Mapping[str, Any], what: str, family: Family) -> None:
    """Each dimension's key must hold a list of integers, and a constant an integer or nothing.

    The keys themselves are already checked. Merged one by one, so that a message can name the key and value.
    """
    schema = OmegaConf.structured(_schema(family))
    for key, value in data.items():
        allowed = "an integer" if key in family.constants else "a list of integers"
        problem = f"{what}: {key}: expected {allowed}, got {show(value)}"
        items = value if isinstance(value, (list, tuple)) else [value]
        # OmegaConf would turn the string "640" into an int, take "${...}" for an interpolation and let lists
        # of lists through.
        if any(isinstance(item, (str, bytes, list, tuple, dict)) for item in items):
            raise InputError(problem)
        try:
            OmegaConf.merge(schema, {key: value})
        except (OmegaConfBaseException, ValueError, TypeError):
            raise InputError(problem) from None
