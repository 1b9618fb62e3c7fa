"""Common part of search spaces and subnets: a family, and values by its keys."""

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
    """Values by key, immutable and hashable. Each is also an attribute: ``subnet["decoder_layers"]`` is
    ``subnet.decoder_layers``; keys that are not in use are None.

    Attributes:
        family: family of the keys.
        values: by key, in the family's fixed order; without unused optional dimensions and constants.
    """

    what = ""  # the kind of object, for messages

    family: Family
    values: Mapping[str, Any]

    def __init__(self, family: str | Family = ENCODER_DECODER, **values: Any) -> None:
        family = find_family(family)
        check_keys(values, self.what, family)
        given = {key: value for key in family.keys if (value := values.get(key)) is not None or _needed(family, key)}
        checked = self._check(family, given)
        self.__dict__.update(dict.fromkeys(family.keys), **checked, family=family, values=checked)

    def _check(self, family: Family, values: dict[str, Any]) -> dict[str, Any]:
        """Return ``values`` in canonical form. Raises InputError."""
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
        """Return the values, preceded by the family's name unless it is the default of files."""
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
        """Return the constants in use."""
        return {key: self.values[key] for key in self.family.constants if key in self.values}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values of some keys."""
        return type(self)(self.family, **(dict(self.values) | changes))

    @classmethod
    def _split(cls, mapping: Any) -> tuple[Family, dict[str, Any]]:
        """Return (family, values) of plain data. Raises InputError if the family is unknown."""
        data = as_mapping(mapping, cls.what)
        return find_family(data.pop(FAMILY_KEY, ENCODER_DECODER), cls.what), data

    def to_dict(self) -> dict[str, Any]:
        """Return plain ints, strings and lists in the fixed order of the keys; only keys in use."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in self._labelled().items()}

    def dumps(self) -> str:
        """Return one line of canonical JSON: values are equal if and only if their texts are."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    def to_yaml(self) -> str:
        """Return the text of its file."""
        return to_yaml(self.to_dict())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write YAML, atomically. Raises `InputError` if the file cannot be written."""
        save_yaml(self.to_dict(), path)


def find_family(family: Any, what: str = "") -> Family:
    """Return the family with that name. Raises InputError if there is none."""
    if isinstance(family, Family):
        return family
    if isinstance(family, str) and family in FAMILIES:
        return FAMILIES[family]
    raise InputError(f"{what}{': ' if what else ''}family: got {show(family)}, allowed are {', '.join(FAMILIES)}")


def _needed(family: Family, key: str) -> bool:
    return key in family.by_key and not family.by_key[key].optional


def _restored(kind: type[FamilyValues], data: dict[str, Any]) -> FamilyValues:
    return kind(**data)
