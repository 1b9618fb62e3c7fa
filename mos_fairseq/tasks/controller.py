"""``--subnet-sampling controller``: while a supernet trains, a distribution over its subnets moves towards those that
are best within a budget (ASNG, arXiv 1905.08537; trained together with the weights, as in arXiv 2403.14729)."""

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
"""The way of sampling, the name of its answer among subnets, and of its state in a checkpoint."""

_COSTS = ("params", "params_without_embeddings", "flops", "flops_without_output_projection")


def check_controller(cfg: Any) -> None:
    """Raise InputError where the options of a controller are out of range, or it has no budget."""
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
    """The answer of the controller that trained a checkpoint.

    Args:
        task_state: what the checkpoint keeps of its task.

    Raises:
        InputError: no controller has trained it, or what it keeps is no subnet.
    """
    state = (task_state or {}).get(CONTROLLER)
    if not state:
        raise InputError("subnet is controller: the supernet was not trained with --subnet-sampling controller")
    return Subnet.from_text(state["answer"])


class Controller:
    """A categorical distribution for each choice of a subnet (:class:`~mos_fairseq.nas.genes.GeneSpace`), and the steps
    that it makes: each from a few subnets drawn from it, all judged on one held-out batch.

    A step is a function of seed, update number, state and judgements. Whatever it draws keeps the budgets: draws that
    miss one are drawn again, or led to the cheapest subnet.

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
        """What trains as the ``number`` of the random subnets of an update: one of those within the budgets, from the
        distribution; before it learns, and of ``controller_uniform`` of the draws, any of the space, as sandwich's."""
        rng = self._random("train", update_num, number)
        if update_num < self.cfg.controller_from or rng.random() < self.cfg.controller_uniform:
            return self.space.sample_subnet("train", self.cfg.seed, update_num, number)
        return self._draw(rng)

    def is_due(self, update_num: int) -> bool:
        """Whether a step is due before an update. It is once, though its micro-batches ask again."""
        since = update_num - self.cfg.controller_from
        return update_num >= self._next_update and since % self.cfg.controller_interval == 0

    def step(self, update_num: int, judge: Callable[[Sequence[Subnet]], list[float]]) -> None:
        """Move to the better of some draws. ``judge``: subnets -> their losses, which may be not finite: the worst."""
        drawn = [self._random("judge", update_num, number) for number in range(self.cfg.controller_samples)]
        subnets = [self._draw(rng) for rng in drawn]
        losses = [loss if math.isfinite(loss) else math.inf for loss in judge(subnets)]
        self.distribution.update([self.candidates.genes.encode(subnet) for subnet in subnets], losses)
        self.steps, self._next_update = self.steps + 1, update_num + 1

    def answer(self) -> Subnet:
        """The most probable subnet; where it misses a budget, it is led to the cheapest until it does not."""
        return self.candidates.genes.decode(within_budgets(self.candidates, self.distribution.answer()))

    @property
    def certainty(self) -> float:
        """The mean probability of the most probable choices, of choices that there are."""
        rows = [row for row in self.distribution.theta if len(row) > 1]
        return float(sum(row.max() for row in rows) / len(rows)) if rows else 1.0

    def _draw(self, rng: random.Random) -> Subnet:
        return self.candidates.genes.decode(self.candidates.draw_one(self.distribution.draw, rng))

    def _random(self, purpose: str, update_num: int, number: int) -> random.Random:
        return random.Random(f"controller/{purpose}/{self.cfg.seed}/{update_num}/{number}")

    def to_dict(self) -> dict[str, Any]:
        """Its state as plain values, exactly, and its answer."""
        state = {"steps": self.steps, "next_update": self._next_update, "answer": self.answer().key}
        return state | self.distribution.to_dict()

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`to_dict`. Raises InputError where it is of other choices."""
        distribution = CategoricalASNG.from_dict(dict(state))
        if distribution.sizes != self.distribution.sizes:
            raise InputError(
                f"search_space: the checkpoint's controller has {len(distribution.sizes)} entries of other choices "
                f"than the {len(self.distribution.sizes)} of this space"
            )
        self.distribution, self.steps, self._next_update = distribution, state["steps"], state["next_update"]
