"""The architecture families, one declaration per file."""

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.search_space.families.decoder_only import DECODER_ONLY
from mos_fairseq.search_space.families.encoder_decoder import ENCODER_DECODER
from mos_fairseq.search_space.families.encoder_only import ENCODER_ONLY
from mos_fairseq.search_space.family import Family

FAMILIES = {family.name: family for family in (ENCODER_DECODER, DECODER_ONLY, ENCODER_ONLY)}


def check_options(options: Any, family: Family) -> None:
    """Raise InputError if a field of the dataclass ``options`` is not at its default but unknown to ``family``."""
    unused = frozenset().union(*(other.options for other in FAMILIES.values())) - family.options
    for option in fields(options):
        if option.name in unused and (value := getattr(options, option.name)) != option.default:
            raise InputError(f"{option.name} is {value}: it has no effect on subnets of family {family.name}")


def check_family(command: str, names: Collection[str], what: str, family: Family) -> None:
    """Raise InputError unless ``family``, the family of ``what``, is one of the ``names`` that ``command`` supports."""
    if family.name not in names:
        raise InputError(f"{command}: for {', '.join(names)}, {what} is {family.name}")


__all__ = ["DECODER_ONLY", "ENCODER_DECODER", "ENCODER_ONLY", "FAMILIES", "check_family", "check_options"]
