"""Progressive shrinking (once-for-all, arXiv 1908.09791): a search space that grows during training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mos_fairseq.errors import InputError
from mos_fairseq.search_space._checks import show
from mos_fairseq.search_space.space import SearchSpace

_FORM = "allowed is KEY:UPDATES, or KEY:UPDATES:UPDATES... for one choice more at a time, separated by commas"


@dataclass(frozen=True)
class ElasticSchedule:
    """The update from which each dimension of a search space is elastic; until then it has its largest value.

    ``updates`` has ascending numbers of updates for some keys. After the first, the dimension has its two largest
    choices, after the second its three largest, and so on; after the last it has all. The other dimensions are elastic
    from the start.
    """

    space: SearchSpace
    updates: Mapping[str, tuple[int, ...]]

    @classmethod
    def from_spec(cls, spec: str, space: SearchSpace) -> ElasticSchedule:
        """Parse a schedule such as ``KEY:2000,OTHER:4000:5000``.

        Raises:
            InputError: another format, an unknown or repeated key, numbers that do not ascend, or more numbers than
                choices that can be added.
        """
        updates: dict[str, tuple[int, ...]] = {}
        for entry in spec.split(","):
            key, *numbers = (part.strip() for part in entry.split(":"))
            what = f"elastic_from {show(entry.strip())}"
            if not numbers or not all(re.fullmatch(r"[0-9]{1,18}", number) for number in numbers):
                raise InputError(f"{what}: {_FORM}")
            known = [dimension.key for dimension in space.dimensions]
            if key not in known:
                raise InputError(f"{what}: {show(key)} is no elastic dimension; allowed are {', '.join(known)}")
            if key in updates:
                raise InputError(f"{what}: {key} is given twice")
            updates[key] = tuple(map(int, numbers))
            if list(updates[key]) != sorted(set(updates[key])):
                raise InputError(f"{what}: the numbers of updates must ascend")
            if len(numbers) >= len(space[key]):
                raise InputError(
                    f"{what}: {len(numbers)} numbers of updates, but the search space has "
                    f"{len(space[key])} choices of {key}, which allow {len(space[key]) - 1}"
                )
        return cls(space, updates)

    def space_at(self, update_num: int) -> SearchSpace:
        """Return the space to draw from after ``update_num`` updates; its largest subnet never changes."""
        narrower = {}
        for key, updates in self.updates.items():
            passed = sum(number <= update_num for number in updates)
            if passed < len(updates):
                narrower[key] = self.space[key][: passed + 1]
        return self.space.replace(**narrower)
