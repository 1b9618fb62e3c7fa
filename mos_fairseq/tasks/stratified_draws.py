"""Random subnets that cover the range of costs evenly."""

from __future__ import annotations

import random
from functools import lru_cache

from mos_fairseq.cost import subnet_cost
from mos_fairseq.search_space import SearchSpace, Subnet

_TRIES = 100


class StratifiedDraws:
    """Draws stratified by cost: FLOPs without the output projection, for 30 source and 30 target tokens.

    The range from the smallest subnet's cost to the largest's is divided into ``strata`` equal parts. Of ``strata``
    consecutive draws, each falls into another part, in random order. If some tries find no subnet in a part, the
    nearest one found is the draw.

    Draws that choose every value independently concentrate in the middle: in large spaces they hardly ever come near
    the largest or the smallest subnet.
    """

    def __init__(self, space: SearchSpace, strata: int) -> None:
        self.space, self.strata = space, strata
        self._least, self._most = _cost(space.smallest()), _cost(space.largest())

    def draw(self, number: int, *seed_parts: object) -> Subnet:
        """Return the subnet for draw ``number``, from 0, and ``seed_parts``."""
        turn, place = divmod(number, self.strata)
        rng = _random("strata", *seed_parts, turn)
        # not rng.shuffle: Python guarantees the same sequence in every version for random() only
        order = sorted(range(self.strata), key=[rng.random() for _ in range(self.strata)].__getitem__)
        low, high = (self._least + (order[place] + end) / self.strata * (self._most - self._least) for end in (0, 1))
        rng = _random("stratum", *seed_parts, number)
        nearest: Subnet  # the first try, until one is nearer
        distance = float("inf")
        for _ in range(_TRIES):
            subnet = self.space.sample(rng, tilt=rng.random())
            cost = _cost(subnet)
            missed = max(low - cost, cost - high, 0.0)
            if missed < distance:
                nearest, distance = subnet, missed
            if not missed:
                break
        return nearest


@lru_cache(maxsize=10_000)
def _cost(subnet: Subnet) -> int:
    return subnet_cost(subnet).flops_without_output_projection


def _random(*parts: object) -> random.Random:
    return random.Random("/".join(str(part) for part in parts))
