"""``--subnet-sampling controller``: while a supernet trains, a distribution over its subnets moves towards the best
ones within a budget (ASNG, arXiv 1905.08537; trained together with the weights, as in arXiv 2403.14729)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mos_fairseq.cost import CostOptions, subnet_cost
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.nas.asng import CategoricalASNG, within_budgets
from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.nas.constraints import Constraint
from mos_fairseq.search_space import SearchSpace, Subnet

CONTROLLER = "controller"
"""Name of the sampling, of its answer among subnets, and of its state in a checkpoint."""

_COSTS = ("params", "params_without_embeddings", "flops", "flops_without_output_projection")


def check_controller(cfg: Any) -> None:
    """Raise InputError if an option of the controller is out of range, or it has no budget."""
    at_least(0, controller_from=cfg.controller_from)
    at_least(1, controller_interval=cfg.controller_interval)
    at_least(2, controller_samples=cfg.controller_samples)
    if not 0 <= cfg.controller_uniform <= 1:
        raise InputError(f"controller_uniform is {cfg.controller_uniform}: allowed are numbers from 0 to 1")
    if not cfg.controller_budget:
        raise InputError(
            "subnet_sampling is controller but no budget is given: add one, as in --controller-budget 'flops<=60%'"
        )
    _budgets(cfg.controller_budget)


def _budgets(text: str) -> list[Constraint]:
    budgets = [Constraint.parse(part) for part in text.split(",")]
    for budget in budgets:
        if budget.key not in _COSTS:
            raise InputError(f"controller_budget is {text}: allowed in training are {', '.join(_COSTS)}")
    return budgets


def answer_of(task_state: Mapping[str, Any] | None) -> Subnet:
    """Return the answer of the controller that was trained with a checkpoint.

    Args:
        task_state: the task's state in the checkpoint.

    Raises:
        InputError: the checkpoint has no controller, or its controller's answer is no subnet.
    """
    state = (task_state or {}).get(CONTROLLER)
    if not state:
        raise InputError("subnet is controller: the supernet was not trained with --subnet-sampling controller")
    return Subnet.from_text(state["answer"])


class Controller:
    """A categorical distribution for each choice of a subnet (:class:`~mos_fairseq.nas.genes.GeneSpace`), and its
    steps. Each step uses a few subnets drawn from it, all judged on one held-out batch.

    A step depends only on seed, update number, state and judgements. All draws keep the budgets: a draw that misses one
    is repeated, or moved towards the cheapest subnet.

    Args:
        cfg: options of the task (``controller_budget``, ``controller_from``, ``controller_interval``,
            ``controller_samples``, ``controller_uniform``, ``seed``).
        options: what costs depend on besides the subnet.

    Raises:
        InputError: no subnet keeps the budgets.
    """

    def __init__(self, space: SearchSpace, cfg: Any, options: CostOptions) -> None:
        def costs(subnets: Sequence[Subnet]) -> list[dict[str, Any]]:
            return [subnet_cost(subnet, options).to_dict() for subnet in subnets]

        self.space, self.cfg = space, cfg
        (costs_of_largest,) = costs([space.largest()])
        budgets = [budget.of_largest(costs_of_largest) for budget in _budgets(cfg.controller_budget)]
        self.candidates = Candidates(space, costs, lambda subnets: [], budgets)
        self.candidates.check_reachable()
        self.distribution = CategoricalASNG(self.candidates.genes.sizes)
        self.steps, self._next_update = 0, cfg.controller_from

    def draw(self, update_num: int, number: int) -> Subnet:
        """Return the random subnet with this ``number`` that trains in an update: within the budgets, drawn from the
        distribution. Before it learns, and for a share ``controller_uniform`` of the draws, the whole space is drawn
        from, as by sandwich."""
        rng = self._random("train", update_num, number)
        if update_num < self.cfg.controller_from or rng.random() < self.cfg.controller_uniform:
            return self.space.sample_subnet("train", self.cfg.seed, update_num, number)
        return self._draw(rng)

    def is_due(self, update_num: int) -> bool:
        """Return whether a step is due before an update. It is due once, although every micro-batch asks."""
        since = update_num - self.cfg.controller_from
        return update_num >= self._next_update and since % self.cfg.controller_interval == 0

    def step(self, update_num: int, judge: Callable[[Sequence[Subnet]], list[float]]) -> None:
        """Move towards the better draws. ``judge`` maps subnets to losses; losses that are not finite are the worst."""
        drawn = [self._random("judge", update_num, number) for number in range(self.cfg.controller_samples)]
        subnets = [self._draw(rng) for rng in drawn]
        losses = [loss if math.isfinite(loss) else math.inf for loss in judge(subnets)]
        self.distribution.update([self.candidates.genes.encode(subnet) for subnet in subnets], losses)
        self.steps, self._next_update = self.steps + 1, update_num + 1

    def answer(self) -> Subnet:
        """Return the most probable subnet, moved towards the cheapest until it keeps the budgets."""
        return self.candidates.genes.decode(within_budgets(self.candidates, self.distribution.answer()))

    @property
    def certainty(self) -> float:
        """Mean probability of the most probable choices, over entries with a choice."""
        rows = [row for row in self.distribution.theta if len(row) > 1]
        return float(sum(row.max() for row in rows) / len(rows)) if rows else 1.0

    def _draw(self, rng: random.Random) -> Subnet:
        return self.candidates.genes.decode(self.candidates.draw_one(self.distribution.draw, rng))

    def _random(self, purpose: str, update_num: int, number: int) -> random.Random:
        return random.Random(f"controller/{purpose}/{self.cfg.seed}/{update_num}/{number}")

    def to_dict(self) -> dict[str, Any]:
        """Return its state as plain values, without rounding, and its answer."""
        state = {"steps": self.steps, "next_update": self._next_update, "answer": self.answer().key}
        return state | self.distribution.to_dict()

    def load(self, state: Mapping[str, Any]) -> None:
        """Resume from a state of :meth:`to_dict`. Raises InputError if the state has other choices."""
        distribution = CategoricalASNG.from_dict(dict(state))
        if distribution.sizes != self.distribution.sizes:
            raise InputError(
                f"search_space: the checkpoint's controller has {len(distribution.sizes)} entries of other choices "
                f"than the {len(self.distribution.sizes)} of this space"
            )
        self.distribution, self.steps, self._next_update = distribution, state["steps"], state["next_update"]
