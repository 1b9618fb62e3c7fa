"""Train a searched subnet alone for a few updates, from its inherited weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mos_fairseq.checkpoints import (
    model_checkpoint,
    read_checkpoint,
    read_supernet,
    save_checkpoint,
    search_space_of,
    subnet_of,
)
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import ModelEvaluator
from mos_fairseq.evaluation.judge import Judge
from mos_fairseq.masked import examples_of
from mos_fairseq.search_space import Subnet, check_family
from mos_fairseq.standalone.data import check_one_folder
from mos_fairseq.standalone.kinds import FAMILIES, kind_of
from mos_fairseq.standalone.options import training_options
from mos_fairseq.standalone.recipe import Recipe, check_words
from mos_fairseq.standalone.training import Training, train_all

_WARMUP = 0.1  # share of the updates
_ENDING = ("cosine", "polynomial_decay", "tri_stage")  # schedules that fall to an end, about 0 by default
_AGAIN = 1 / 3  # of the supernet's highest learning rate


def default_learning_rate(state: Mapping[str, Any]) -> float | None:
    """Return the highest learning rate of a short training; None if the checkpoint has no optimizer state.

    It is the rate of the supernet's last update; or, because ``cosine``, ``polynomial_decay`` and ``tri_stage`` fall to
    an end, with these a third of the supernet's highest. (fairseq's ``cosine`` records the rate of its next period.)
    """
    groups = (state.get("last_optimizer_state") or {}).get("param_groups") or [{}]
    rate = groups[0].get("lr")
    if rate is None:
        return None
    if state["cfg"]["lr_scheduler"]["_name"] in _ENDING:
        return _AGAIN * float(max(state["cfg"]["optimization"]["lr"]))
    return float(rate)


def short_schedule(rate: float | None, updates: int, more: Sequence[str] = ()) -> list[str]:
    """Return the options of ``fairseq-train`` for a short training from inherited weights, ``more`` among them.

    The learning rate rises in the first tenth of the updates and then falls linearly to 0. The subnet is already close
    to an optimum, and a rate that ends at 0 reaches it in the fewest updates.

    Args:
        rate: the highest learning rate.
        updates: number of updates.
        more: options that override the rate and, where they have a schedule, the schedule.
    """
    words = [] if rate is None else ["--lr", repr(rate)]
    if not _gives(more, "--lr-scheduler"):
        words += ["--lr-scheduler", "polynomial_decay", "--total-num-update", str(updates)]
        words += ["--warmup-updates", str(int(_WARMUP * updates)), "--end-learning-rate", "0.0"]
    return words + list(more)


def short_recipe(
    cfg: Mapping[str, Any],
    data: str,
    rate: float | None,
    updates: int,
    more: Sequence[str] = (),
    others: Sequence[str] = (),
) -> Recipe:
    """Return the recipe of a short training from inherited weights.

    Its schedule is :func:`short_schedule`, without the options of the recorded one, such as another ``--power``; or,
    if ``more`` has a schedule, that one.

    Args:
        cfg: the supernet's configuration, as plain containers.
        rate, updates, more: see :func:`short_schedule`.
        others: further arguments of ``fairseq-train``, before those.

    Raises:
        InputError: standalone models cannot train so.
    """
    recorded = cfg if _gives(more, "--lr-scheduler") else {part: cfg[part] for part in cfg if part != "lr_scheduler"}
    words = [*others, *short_schedule(rate, updates, more)]
    return Recipe(kind_of(cfg), data, training_options(recorded, words), words)


def check_rate(rate: float | None, supernet: str, more: Sequence[str] = (), option: str = "--lr") -> None:
    """Raise InputError if neither the checkpoint ``supernet`` nor the options ``more`` give a learning rate.

    ``option`` is the command's, by which users give one."""
    if rate is None and not _gives(more, "--lr"):
        raise InputError(f"checkpoint {supernet}: its optimizer's state has no learning rate: give {option}")


def _gives(words: Sequence[str], option: str) -> bool:
    return any(word.partition("=")[0] == option for word in words)


def short_training(
    state: Mapping[str, Any],
    supernet: str,
    data: str,
    subnet: Subnet,
    updates: int,
    root: Path,
    lr: float | None = None,
    more: Sequence[str] = (),
) -> Training:
    """Return the run of ``fairseq-train`` that trains one subnet of a supernet alone, and make its folder in ``root``.
    A run with more updates starts anew, because its schedule (:func:`short_schedule`) depends on the number.

    Args:
        state: content of the checkpoint ``supernet``.
        lr: the highest learning rate; None: :func:`default_learning_rate`.
        more: arguments of ``fairseq-train`` that override those recorded in the supernet, and the schedule.

    Raises:
        InputError: the checkpoint has no learning rate, and none is given; or standalone models cannot train so.
    """
    rate = default_learning_rate(state) if lr is None else lr
    check_rate(rate, supernet, more)
    cfg = state["cfg"]
    check_one_folder(cfg, data)
    return short_recipe(cfg, data, rate, updates, more).finetuning(root, subnet, updates, supernet)


def without_optimizer(state: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint of a model without optimizer state, for use or further training."""
    return model_checkpoint(state, state["cfg"]["model"], state["model"], state["cfg"]["task"]["_name"])


@dataclass(frozen=True)
class Finetuning:
    """Train one subnet of a supernet alone on the supernet's data with its options (:func:`short_training`).

    Args:
        supernet: its checkpoint.
        spec: the subnet's spec.
        updates: number of updates of the subnet alone.
        output: folder of the results.
        judge: settings for scoring it, before and after.
        lr: the highest learning rate; None: :func:`default_learning_rate`.
        more: arguments of ``fairseq-train`` that override those recorded in the supernet, and the schedule.
        threads: torch's threads of the training process.

    Raises:
        InputError: the checkpoint is no supernet, or has no learning rate and none is given; the subnet is not in its
            space; or ``more`` has an option that the command sets.
    """

    supernet: str
    spec: str
    updates: int
    output: Path
    judge: Judge
    lr: float | None = None
    more: Sequence[str] = ()
    threads: int = 1

    def __post_init__(self) -> None:
        check_words("mos-finetune", self.more)

    @cached_property
    def _state(self) -> dict[str, Any]:
        state = read_supernet(self.supernet)
        family = search_space_of(state).family
        check_family("mos-finetune", list(FAMILIES), self.supernet, family)
        self.judge.check_family(family)
        kind_of(state["cfg"])
        return state

    @cached_property
    def subnet(self) -> Subnet:
        """The subnet that trains."""
        return subnet_of(self._state, self.spec)

    @cached_property
    def training(self) -> Training:
        """See :func:`short_training`."""
        where = (self._state, self.supernet, self.judge.data, self.subnet, self.updates, self.output / "training")
        return short_training(*where, self.lr, self.more)

    @property
    def checkpoint(self) -> Path:
        """The model file that :meth:`run` writes."""
        return self.output / "finetuned.pt"

    def run(self) -> dict[str, dict[str, Any]]:
        """Train, write the checkpoint, and score: ``inherited`` and ``finetuned``, each as :meth:`Judge.scores`.

        An interrupted run resumes.

        Raises:
            InputError: the training failed, or a file cannot be written.
        """
        training = self.training
        scores = {} if training.start is None else {"inherited": self._scores(training.start)}
        for _ in train_all([training], 1, self.threads):
            save_checkpoint(without_optimizer(read_checkpoint(training.result)), self.checkpoint)
        return scores | {"finetuned": self._scores(training.result)}

    def _scores(self, checkpoint: Path) -> dict[str, Any]:
        judge, path = self.judge, str(checkpoint)
        evaluator = ModelEvaluator(path, judge.data, judge.options, judge.device, examples_of(self._state["cfg"]))
        file = checkpoint.parent / f"scores-{checkpoint.stem}-{judge.digest(evaluator.fingerprint())}.json"
        return judge.scores(file, partial(_same, evaluator))


def _same(evaluator: ModelEvaluator) -> ModelEvaluator:
    return evaluator
