"""What search spaces and subnets have in common: a family, and values by its keys."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from mos_fairseq.errors import InputError
from mos_fairseq.search_space._checks import as_mapping, check_keys, show
from mos_fairseq.search_space._yaml import save_yaml, to_yaml
from mos_fairseq.search_space.families import ENCODER_DECODER, FAMILIES
from mos_fairseq.search_space.family import Dimension, Family

FAMILY_KEY = "family"


class FamilyValues:
    """Values by key, immutable and hashable. Each is an attribute too: ``subnet["decoder_layers"]`` is
    ``subnet.decoder_layers``; keys that are not in use are None.

    Attributes:
        family: whose keys these are.
        values: by key, in the family's fixed order; optional dimensions and constants that are not in use are left out.
    """

    what = ""  # in messages

    family: Family
    values: Mapping[str, Any]

    def __init__(self, family: str | Family = ENCODER_DECODER, **values: Any) -> None:
        family = find_family(family)
        check_keys(values, self.what, family)
        given = {key: value for key in family.keys if (value := values.get(key)) is not None or _needed(family, key)}
        checked = self._check(family, given)
        self.__dict__.update(dict.fromkeys(family.keys), **checked, family=family, values=checked)

    def _check(self, family: Family, values: dict[str, Any]) -> dict[str, Any]:
        """``values`` in canonical form. Raises InputError."""
        raise NotImplementedError

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: {name} cannot be set")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.family == other.family and self.values == other.values

    def __hash__(self) -> int:
        return hash((self.family.name, *self.values.values()))

    def __repr__(self) -> str:
        given = ", ".join(f"{key}={value!r}" for key, value in self._labelled().items())
        return f"{type(self).__name__}({given})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self._labelled())

    def _labelled(self) -> dict[str, Any]:
        """The values, after the family's name where it is not the one that files mean without it."""
        name = {} if self.family == ENCODER_DECODER else {FAMILY_KEY: self.family.name}
        return name | dict(self.values)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The elastic dimensions in use, in the order of drawing, enumerating and printing."""
        return tuple(d for d in self.family.dimensions if d.key in self.values)

    @property
    def encoded(self) -> tuple[Dimension, ...]:
        """The elastic dimensions in use, in the order of the arch encoding."""
        return tuple(d for d in self.family.encoded if d.key in self.values)

    @property
    def constants(self) -> dict[str, int]:
        """The constants in use."""
        return {key: self.values[key] for key in self.family.constants if key in self.values}

    def replace(self, **changes: Any) -> Self:
        """The same with other values of some keys."""
        return type(self)(self.family, **(dict(self.values) | changes))

    @classmethod
    def _split(cls, mapping: Any) -> tuple[Family, dict[str, Any]]:
        """(family, values) of plain data. Raises InputError where the family is unknown."""
        data = as_mapping(mapping, cls.what)
        return find_family(data.pop(FAMILY_KEY, ENCODER_DECODER), cls.what), data

    def to_dict(self) -> dict[str, Any]:
        """Plain ints, strings and lists in the fixed order of the keys; only what is in use."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in self._labelled().items()}

    def dumps(self) -> str:
        """One line of canonical JSON: equal values have equal text, different ones different text."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    def to_yaml(self) -> str:
        """The text of its file."""
        return to_yaml(self.to_dict())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as YAML, atomically. Raises `InputError` if the file cannot be written."""
        save_yaml(self.to_dict(), path)


def find_family(family: Any, what: str = "") -> Family:
    """The family of that name. Raises InputError where there is none."""
    if isinstance(family, Family):
        return family
    if isinstance(family, str) and family in FAMILIES:
        return FAMILIES[family]
    raise InputError(f"{what}{': ' if what else ''}family: got {show(family)}, allowed are {', '.join(FAMILIES)}")


def _needed(family: Family, key: str) -> bool:
    return key in family.by_key and not family.by_key[key].optional


def _restored(kind: type[FamilyValues], data: dict[str, Any]) -> FamilyValues:
    return kind(**data)
