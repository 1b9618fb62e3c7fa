"""The subnets that users name in a task's options, and the controller that learns one of them."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from fairseq.models import MODEL_REGISTRY

from mos_fairseq.command import Command
from mos_fairseq.cost import CostOptions
from mos_fairseq.errors import InputError
from mos_fairseq.search_space import ElasticSchedule, SearchSpace, Subnet, resolve_subnet, split_specs, subnet_name
from mos_fairseq.tasks.controller import CONTROLLER, Controller, answer_of
from mos_fairseq.tasks.held_out import HeldOut

logger = logging.getLogger(__name__)


if TYPE_CHECKING:  # the class that the mixin precedes
    from fairseq.tasks import FairseqTask as _Base
else:
    _Base = object


class SubnetsOfTask(_Base):
    """Mixin of tasks for supernets: a part of :class:`~mos_fairseq.tasks.supernet_task.SupernetTask`."""

    name: ClassVar[str]
    arch: ClassVar[str]
    cfg: Any
    search_space: SearchSpace | None
    command: Command | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._resolved: dict[str, Subnet] = {}
        self._controller: Controller | None = None
        self._held_out: HeldOut | None = None
        self._drawn: tuple[int, list[tuple[str, Subnet]]] | None = None  # (update, its subnets)

    def _space(self) -> SearchSpace:
        """Return the search space. Raises InputError if neither options nor a checkpoint name one."""
        if self.search_space is None:
            presets = ", ".join(SearchSpace.preset_names(MODEL_REGISTRY[self.arch].family))
            raise InputError(f"{self.name} needs --search-space: a preset ({presets}) or a YAML file")
        return self.search_space

    def check_subnets(self) -> None:
        """Raise InputError if a named subnet or the schedule is invalid. A controller's answer is known later; it is
        invalid if there will be no controller."""
        _ = self.elastic_schedule
        trains = self.command is None or self.command.name == "train"
        is_known_later = str(self.cfg.subnet_sampling) == CONTROLLER or not trains
        for spec in (*split_specs(self.cfg.valid_subnets), self.cfg.subnet or "largest"):
            if spec != CONTROLLER or not is_known_later:
                self._named(spec)

    # Resolved on first use: a checkpoint has the names of files used in training, and must load without the files.
    def _named(self, spec: str) -> Subnet:
        """Return the subnet that ``spec`` names now: ``controller`` may change after every step."""
        if spec == CONTROLLER:
            return answer_of(self.state_dict()) if self._controller is None else self._controller.answer()
        if spec not in self._resolved:
            self._resolved[spec] = resolve_subnet(spec, self._space())
        return self._resolved[spec]

    @property
    def valid_subnets(self) -> dict[str, Subnet]:
        """Validation subnets by name. Raises InputError for bad specs."""
        return {subnet_name(spec): self._named(spec) for spec in split_specs(self.cfg.valid_subnets)}

    @property
    def subnet(self) -> Subnet:
        """The subnet of ``--subnet`` (default: the largest). Raises InputError for a bad spec."""
        return self._named((self.cfg.subnet or "largest").strip())

    @cached_property
    def elastic_schedule(self) -> ElasticSchedule | None:
        """The schedule of ``--elastic-from``. Raises InputError if it is invalid, or if no subnet is drawn."""
        if not self.cfg.elastic_from:
            return None
        if (sampling := str(self.cfg.subnet_sampling)) in ("largest", "fixed"):
            raise InputError(f"elastic_from is given, but with subnet_sampling {sampling} no dimension is ever elastic")
        schedule = ElasticSchedule.from_spec(self.cfg.elastic_from, self._space())
        if sampling == CONTROLLER and schedule.space_at(self.cfg.controller_from) != self.search_space:
            raise InputError(
                f"controller_from is {self.cfg.controller_from}: by then, not every size is elastic (elastic_from is "
                f"{self.cfg.elastic_from})"
            )
        return schedule

    def compare_with_earlier(self, cfg: Any) -> None:
        """Warn if a resumed training goes on with another ``--subnet-sampling`` or ``--largest-until`` or, with
        ``--shard-data``, other data.

        Args:
            cfg: the checkpoint's whole configuration.
        """
        for name in ("subnet_sampling", "largest_until"):
            earlier, now = getattr(getattr(cfg, "task", None), name, None), getattr(self.cfg, name)
            if earlier is not None and str(earlier) != str(now):  # None: not a supernet's, or of an earlier version
                option = f"--{name.replace('_', '-')}"
                logger.warning(
                    "%s is %s from here on, and was %s until here: give the earlier %s (Hydra: task.%s) to go on as "
                    "before",
                    *(name, now, earlier, option, name),
                )
                break  # the second belongs to the first
        before = [getattr(getattr(cfg, "task", None), name, None) for name in ("shard_data", "data")]
        if before[0] is None or not (before[0] or self.cfg.shard_data):
            return
        for name, old in zip(("shard_data", "data"), before, strict=True):
            if (new := getattr(self.cfg, name)) != old:
                logger.warning("%s is %s from here on, and was %s until here: the mini-batches differ", name, new, old)

    # --- the controller -----------------------------------------------------------------------------------------------

    def _start_controller(self, model: Any) -> None:
        """Start the controller if one is requested. Raises InputError if no subnet keeps its budget."""
        if str(self.cfg.subnet_sampling) == CONTROLLER:
            options = CostOptions.of_model(model.cfg, *(len(words) for words in model.dictionaries_of(self)))
            self._controller = Controller(self._space(), self.cfg, options)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of fairseq's task, and that of a controller."""
        learnt = {} if self._controller is None else {CONTROLLER: self._controller.to_dict()}
        return super().state_dict() | learnt

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load as fairseq's task does. Raises InputError if the controller's state belongs to another space."""
        super().load_state_dict(state_dict)
        self._drawn = None  # by a controller with another state
        if self._controller is not None and CONTROLLER in state_dict:
            self._controller.load(state_dict[CONTROLLER])

    def _learn(self, model, criterion, update_num: int) -> None:
        """Let the controller take its step before an update, if one is due."""
        controller = self._controller
        if controller is None or not controller.is_due(update_num):
            return
        held_out, number = self._compared_on(model), controller.steps
        controller.step(update_num, lambda subnets: held_out.judge(number, subnets, model, criterion))
        if update_num % self.cfg.log_interval < self.cfg.controller_interval:
            text = "controller after %d steps: %s (its choices have a mean probability of %.2f)"
            logger.info(text, controller.steps, controller.answer().summary(), controller.certainty)

    def _compared_on(self, model) -> HeldOut:
        if self._held_out is None:
            subset = self.cfg.controller_subset or self.cfg.valid_subset.split(",")[0]
            self._held_out = HeldOut(self, subset, model.max_positions())
        return self._held_out
