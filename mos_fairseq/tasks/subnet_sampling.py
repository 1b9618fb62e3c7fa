"""The subnets that train in an update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mos_fairseq.distributed import data_parallel_rank, data_parallel_size
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.search_space import ElasticSchedule, SearchSpace, Subnet
from mos_fairseq.tasks.controller import CONTROLLER, Controller, check_controller
from mos_fairseq.tasks.stratified_draws import StratifiedDraws

UNIFORM = ("sandwich", "alternate", "random", "decay")
"""Sampling rules that draw from a fixed distribution."""
DRAWING = (*UNIFORM, CONTROLLER)
"""Sampling rules that draw random subnets."""
WITH_SMALLEST = ("sandwich", CONTROLLER)
"""Sampling rules that also train the largest and the smallest subnet."""
SAMPLINGS = (*DRAWING, "largest", "smallest", "fixed")

Named = list[tuple[str, Subnet]]


def check_sampling(cfg: Any) -> None:
    """Raise InputError if a task's options contradict each other, or are out of range."""
    sampling = str(cfg.subnet_sampling)
    at_least(1, num_random_subnets=cfg.num_random_subnets, smallest_interval=cfg.smallest_interval)
    at_least(0, cost_strata=cfg.cost_strata, local_updates=cfg.local_updates)
    if sampling == CONTROLLER:
        check_controller(cfg)
        if cfg.local_updates:
            raise InputError(
                f"local_updates is given with subnet_sampling {CONTROLLER}, which learns from one model: allowed are "
                f"{', '.join(name for name in SAMPLINGS if name != CONTROLLER)}"
            )
    if sampling == "decay":
        at_least(1, largest_until=cfg.largest_until)
    if sampling == "fixed" and not cfg.subnet:
        raise InputError("subnet_sampling is fixed but no subnet is given: add --subnet SUBNET")
    if cfg.subnets_per_rank and sampling not in DRAWING:
        raise InputError(
            f"subnets_per_rank is given with subnet_sampling {sampling}, which draws no random subnets: "
            f"allowed are {', '.join(DRAWING)}"
        )


class SubnetSampling:
    """The subnets of each update; they depend on seed and update number only.

    Args:
        cfg: options of the task (:class:`SupernetTaskConfig`).
        schedule: update from which each dimension is elastic; None: all are elastic from the start.
        fixed: resolves the subnet of ``--subnet``.
        controller: controller of sampling ``controller``.
    """

    def __init__(
        self,
        space: SearchSpace,
        cfg: Any,
        schedule: ElasticSchedule | None,
        fixed: Callable[[], Subnet],
        controller: Controller | None = None,
    ) -> None:
        self.space, self.cfg, self.schedule, self.fixed, self.controller = space, cfg, schedule, fixed, controller
        self._by_cost: dict[SearchSpace, StratifiedDraws] = {}

    def subnets(self, update_num: int) -> Named:
        """Return (name, subnet) of the subnets that train after ``update_num`` updates. With ``--subnets-per-rank``
        they also depend on the process's rank.

        With ``--elastic-from`` they come from the dimensions that are elastic by then. While none is, sampling rules
        that draw train the largest subnet alone.
        """
        space, sampling = self.space, str(self.cfg.subnet_sampling)
        if self.schedule is not None:
            space = self.schedule.space_at(update_num)
            if space.size == 1:
                return [("largest", space.largest())]
        if sampling == "fixed":
            return [("fixed", self.fixed())]
        largest, smallest = ("largest", space.largest()), ("smallest", space.smallest())
        if sampling in WITH_SMALLEST:
            last = [] if update_num % self.cfg.smallest_interval else [smallest]
            return [largest, *self._random_ones(space, update_num, update_num), *last]
        if sampling == "alternate":
            drawn = update_num // 2
            return self._random_ones(space, update_num, drawn) if update_num % 2 else [largest]
        if sampling == "decay":
            drawn = self._drawn_in_decay(update_num)
            draws = self._drawn_in_decay(update_num + 1) > drawn
            return self._random_ones(space, update_num, drawn) if draws else [largest]
        if sampling == "random":
            return self._random_ones(space, update_num, update_num)
        return [{"largest": largest, "smallest": smallest}[sampling]]

    def _drawn_in_decay(self, update_num: int) -> int:
        """Return how many of the first ``update_num`` updates draw random subnets: update t of N has t / N of a draw.

        The sum of these shares decides, and no coin, so that any number of updates has the share of the largest that
        it should have.
        """
        length = self.cfg.largest_until
        falling = min(update_num, length)
        return falling * (falling - 1) // (2 * length) + update_num - falling

    def _random_ones(self, space: SearchSpace, update_num: int, drawn: int) -> Named:
        """Return the random subnets of an update, before which ``drawn`` updates drew some."""
        number, seed = self.cfg.num_random_subnets, self.cfg.seed
        per_rank = self.cfg.subnets_per_rank
        first = data_parallel_rank() * number if per_rank else 0
        if self.controller is not None and space == self.space:  # otherwise not every dimension is elastic yet
            return [("random", self.controller.draw(update_num, first + i)) for i in range(number)]
        if not self.cfg.cost_strata:
            return [("random", space.sample_subnet("train", seed, update_num, first + i)) for i in range(number)]
        if space not in self._by_cost:
            self._by_cost[space] = StratifiedDraws(space, self.cfg.cost_strata)
        first += drawn * number * (data_parallel_size() if per_rank else 1)
        return [("random", self._by_cost[space].draw(first + i, "train", seed)) for i in range(number)]
