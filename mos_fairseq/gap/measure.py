"""The experiment: inherited scores of several supernets, and the standalone trainings that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mos_fairseq.checkpoints import read_supernet, updates_of
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import ModelEvaluator, SubnetEvaluator
from mos_fairseq.evaluation.judge import Judge
from mos_fairseq.evaluation.scoring import TEXT_METRICS
from mos_fairseq.evaluation.significance import paired_bootstrap
from mos_fairseq.gap.table import Row
from mos_fairseq.masked import examples_of
from mos_fairseq.search_space import SearchSpace, Subnet, check_family, resolve_subnet, subnet_name
from mos_fairseq.standalone.data import check_one_folder
from mos_fairseq.standalone.finetuning import check_rate, default_learning_rate, short_recipe
from mos_fairseq.standalone.kinds import FAMILIES, kind_of
from mos_fairseq.standalone.options import Options, training_options, without_schedule
from mos_fairseq.standalone.recipe import Recipe, check_words
from mos_fairseq.standalone.training import Training, train_all

Tell = Callable[[str], object]
_Evaluator = TypeVar("_Evaluator", bound=ModelEvaluator)


class _Supernet(NamedTuple):
    """What is known of a supernet's training: configuration, number of updates, learning rate for fine-tuning."""

    cfg: dict[str, Any]
    updates: int
    rate: float | None


@dataclass(frozen=True)
class Experiment:
    """Settings of a comparison.

    Args:
        supernets: checkpoints by name; all of one search space.
        specs: subnets, as users name them.
        judge: settings for scoring models.
        output: folder of inherited scores and fine-tuned models.
        standalone: folder of standalone models, which other experiments may share.
        updates: number of standalone updates; None for the supernets' own number.
        more: arguments of ``fairseq-train`` that override those recorded in the supernets.
        finetune_updates: numbers of updates of fine-tuning, each a :func:`short_recipe` of its own; empty for none.
        finetune_more: arguments that override in fine-tuning, after those of ``more`` but for learning rate and
            schedule. With a schedule among them, all numbers are one training.
        workers, threads: number of parallel training processes, and the threads of each.
        bootstrap: resampled test sets to compare the other supernets with the first; 0 for none.

    Raises:
        InputError: a checkpoint holds no supernet; they differ in search space or in how they were trained; a subnet is
            not in the space.
    """

    supernets: Mapping[str, str]
    specs: Sequence[str]
    judge: Judge
    output: Path
    standalone: Path
    updates: int | None = None
    more: Sequence[str] = ()
    finetune_updates: Sequence[int] = ()
    finetune_more: Sequence[str] = ()
    workers: int = 1
    threads: int = 1
    bootstrap: int = 0
    tell: Tell = field(default=lambda text: None)

    def __post_init__(self) -> None:
        check_words("mos-gap", (*self.more, *self.finetune_more))

    @cached_property
    def subnets(self) -> dict[str, Subnet]:
        """Subnets by name; each architecture appears once."""
        recorded = self._recorded.items()
        spaces = {name: SearchSpace.from_spec(known.cfg["model"]["search_space"]) for name, known in recorded}
        first, space = next(iter(spaces.items()))
        for name, other in spaces.items():
            if difference := space.difference(other):
                raise InputError(f"supernets {first} and {name} have different search spaces: {difference}")
        found: dict[str, Subnet] = {}
        for spec in self.specs:
            subnet = resolve_subnet(spec, space)
            if subnet not in found.values():
                found[subnet_name(spec)] = subnet
        return found

    @cached_property
    def _recorded(self) -> dict[str, _Supernet]:
        states = {name: read_supernet(path) for name, path in self.supernets.items()}
        for name, state in states.items():
            space = SearchSpace.from_spec(state["cfg"]["model"]["search_space"])
            check_family("mos-gap measure", list(FAMILIES), name, space.family)
            self.judge.check_family(space.family)
            kind_of(state["cfg"])
        return {
            name: _Supernet(state["cfg"], updates_of(state), default_learning_rate(state))
            for name, state in states.items()
        }

    @cached_property
    def budget(self) -> int:
        """Number of standalone updates."""
        if self.updates is not None:
            return self.updates
        recorded = {known.updates for known in self._recorded.values()}
        if len(recorded) > 1 or 0 in recorded:
            counts = ", ".join(f"{name} {known.updates}" for name, known in self._recorded.items())
            raise InputError(f"the supernets differ in their numbers of updates ({counts}): give --max-update")
        return recorded.pop()

    @cached_property
    def options(self) -> Options:
        """Options of ``fairseq-train`` for all architectures: the supernets' own, without the options in ``more``."""
        for known in self._recorded.values():
            check_one_folder(known.cfg, self.judge.data)
        options = {name: training_options(known.cfg, self.more) for name, known in self._recorded.items()}
        first, mine = next(iter(options.items()))
        for name, other in options.items():
            for option in sorted(mine.keys() | other.keys()):
                if (option in mine, mine.get(option)) != (option in other, other.get(option)):
                    values = [_show(found, option) for found in (mine, other)]
                    raise InputError(
                        f"supernets {first} and {name} were trained with {values[0]} and {values[1]}: give {option} "
                        "after --, for the shared standalone models"
                    )
        return mine

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the standalone models."""
        return Recipe(kind_of(self._first), self.judge.data, self.options, self.more)

    def _finetuning(self, name: str, updates: int) -> Recipe:
        """Return the recipe of the supernet ``name``'s subnets that train on for ``updates``."""
        known = self._recorded[name]
        others = without_schedule(self.more)
        check_rate(known.rate, self.supernets[name], self.finetune_more, "--finetune-options '--lr …'")
        return short_recipe(known.cfg, self.judge.data, known.rate, updates, self.finetune_more, others)

    @property
    def _first(self) -> dict[str, Any]:
        """The configuration of the first supernet."""
        return next(iter(self._recorded.values())).cfg

    def _evaluator(self, kind: type[_Evaluator], path: str) -> _Evaluator:
        """Return an evaluator; all models are judged on the samples and masks of the first supernet's training."""
        judge = self.judge
        return kind(path, judge.data, judge.options, judge.device, examples_of(self._first))

    def training(self, subnet: Subnet) -> Training:
        """Return the standalone training of one architecture."""
        return self.recipe.from_scratch(self.standalone, subnet, self.budget)

    # --- scores ----------------------------------------------------------------------------------------------------

    def inherited(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the scores of all subnets with the weights of the supernet ``name``."""
        judge, scores = self.judge, {}
        evaluator = self._evaluator(SubnetEvaluator, self.supernets[name])
        fingerprint = evaluator.fingerprint()
        for label, subnet in self.subnets.items():
            path = self.output / "inherited" / f"{name}-{label}-{judge.digest(fingerprint, subnet.key)}.json"
            scores[label] = judge.scores(path, partial(_activated, evaluator, subnet))
            self.tell(f"{name}: {label} inherits {_text(scores[label])}")
        return scores

    @property
    def signature(self) -> str | None:
        """sacreBLEU's signature of all scores; None if translations are not scored."""
        training = self.training(next(iter(self.subnets.values())))
        return self._trained_scores(training).get("signature")

    @cached_property
    def _set(self) -> tuple[str, list[str]]:
        """The fingerprint of the set that models are judged on, and its references if it is translated."""
        judge = self.judge
        evaluator = self._evaluator(SubnetEvaluator, next(iter(self.supernets.values())))
        references = judge.references(evaluator) if judge.translates else []
        return judge.digest(evaluator.set_fingerprint()), references

    def _trained_scores(self, training: Training) -> dict[str, Any]:
        """Return the scores of a finished run."""
        prepare = partial(self._evaluator, ModelEvaluator, str(training.result))
        return self.judge.scores(training.folder / f"scores-{training.updates}-{self._set[0]}.json", prepare)

    def standalone_scores(self) -> dict[str, dict[str, Any]]:
        """Return the scores of all architectures, trained alone."""
        labels, scores = list(self.subnets), {}
        trainings = [self.training(subnet) for subnet in self.subnets.values()]
        self.tell(f"standalone: {len(labels)} architectures, {self.budget} updates each")
        for position in train_all(trainings, self.workers, self.threads):
            label = labels[position]
            scores[label] = self._trained_scores(trainings[position])
            self.tell(f"standalone: {label} reaches {_text(scores[label])} ({len(scores)} of {len(labels)})")
        return {label: scores[label] for label in labels}

    def finetuned_scores(
        self, name: str, inherited: Mapping[str, Any], standalone: Mapping[str, Any]
    ) -> dict[str, dict[int, dict[str, Any]]]:
        """Return the scores of the fine-tuned subnets of the supernet ``name``, keyed by number of updates, up to the
        first number that reaches the standalone score."""
        quality, reaches = self.judge.quality, self.judge.reaches
        found: dict[str, dict[int, dict[str, Any]]] = {label: {} for label in self.subnets}
        pending = [label for label in found if not reaches(inherited[label][quality], standalone[label][quality])]
        for updates in self.finetune_updates if pending else ():
            start, folder = self.supernets[name], self.output / "finetuned"
            recipe = self._finetuning(name, updates)
            trainings = [recipe.finetuning(folder, self.subnets[label], updates, start) for label in pending]
            for position in train_all(trainings, self.workers, self.threads):
                label = pending[position]
                found[label][updates] = self._trained_scores(trainings[position])
                self.tell(f"{name}: {label} reaches {_text(found[label][updates])} after {updates} updates more")
            pending = [x for x in pending if not reaches(found[x][updates][quality], standalone[x][quality])]
        return found

    def check(self) -> None:
        """Raise InputError for mistakes that reading supernets and data shows. Nothing is written."""
        _ = self.subnets, self.options, self.budget, self.recipe.data_digest, self._set
        for name in self.supernets if self.finetune_updates else ():
            self._finetuning(name, self.finetune_updates[0])

    def rows(self) -> Iterator[Row]:
        """Yield all scores: one row for each metric, supernet and architecture."""
        self.check()
        inherited = {name: self.inherited(name) for name in self.supernets}
        compared = self._compared(inherited)
        standalone = self.standalone_scores()
        for name in self.supernets:
            finetuned = self.finetuned_scores(name, inherited[name], standalone)
            for metric in self.judge.metrics:
                for label, subnet in self.subnets.items():
                    mine, alone = inherited[name][label], standalone[label]
                    sure = compared[label].get(name, {}) if metric == self.judge.quality else {}
                    tuned = {updates: scores[metric] for updates, scores in finetuned[label].items()}
                    yield Row(
                        label,
                        mine[metric],
                        alone[metric],
                        name,
                        metric,
                        tuned,
                        self._extra_updates(mine, alone, finetuned[label]) if metric == self.judge.quality else None,
                        {"architecture": subnet.to_dict()} | sure,
                    )

    def _compared(self, inherited: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
        """Return, by subnet and supernet, BLEU's (or chrF's) confidence interval and its comparison with the first."""
        found: dict[str, dict[str, dict[str, float]]] = {label: {} for label in self.subnets}
        for label in found if self.bootstrap and self.judge.translates and len(self.supernets) > 1 else ():
            files = {name: scores[label]["hypotheses"] for name, scores in inherited.items()}
            systems = {name: self.judge.hypotheses(file, len(self._set[1])) for name, file in files.items()}
            tokenizer = self.judge.options.sacrebleu_tokenizer
            found[label] = paired_bootstrap(systems, self._set[1], self.bootstrap, self.judge.quality, tokenizer)
        return found

    def _extra_updates(self, inherited: Any, standalone: Any, finetuned: Mapping[int, Any]) -> int | None:
        if not self.finetune_updates:
            return None
        scores, quality = {0: inherited} | dict(finetuned), self.judge.quality
        reached = (n for n, found in scores.items() if self.judge.reaches(found[quality], standalone[quality]))
        return next(reached, None)


def _activated(evaluator: SubnetEvaluator, subnet: Subnet) -> SubnetEvaluator:
    evaluator.model.set_active_subnet(subnet)
    return evaluator


def _show(options: Options, option: str) -> str:
    if option not in options:
        return f"no {option}"
    return option if options[option] is None else f"{option} {options[option]}"


def _text(scores: Mapping[str, Any]) -> str:
    quality = ", ".join(f"{title} {scores[name]:.2f}" for name, title in TEXT_METRICS.items() if name in scores)
    return f"{quality}{', ' if quality else ''}loss {scores['loss']:.4f}"
