"""Common part of supernet tasks: the subnets that train, validate and generate.

It is a mixin before a task of fairseq. A family's task adds its data and its metrics.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from fairseq import utils
from fairseq.criterions import CRITERION_REGISTRY, FairseqCriterion
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask

from mos_fairseq.command import Command, calling_command
from mos_fairseq.distributed import LocalRounds, check_launch, data_parallel_size
from mos_fairseq.errors import InputError, at_least
from mos_fairseq.models.parameter_summary import parameter_summary
from mos_fairseq.models.switches import keep_active_subnet
from mos_fairseq.models.transformer_config import record_in_config
from mos_fairseq.mos_options import check_experts
from mos_fairseq.search_space import SearchSpace, Subnet
from mos_fairseq.tasks.bad_losses import BadLosses
from mos_fairseq.tasks.best_metric import check_metric, warn_of_direction
from mos_fairseq.tasks.known_words import KnownWords
from mos_fairseq.tasks.local_training import LocalTraining
from mos_fairseq.tasks.options import OptionTable
from mos_fairseq.tasks.same_batches import same_batches
from mos_fairseq.tasks.sharded_data import ShardedData
from mos_fairseq.tasks.subnet_metrics import merge_logs, reduce_subnet_metrics
from mos_fairseq.tasks.subnet_sampling import SubnetSampling, check_sampling
from mos_fairseq.tasks.subnets_of_task import SubnetsOfTask

logger = logging.getLogger(__name__)


def _is_teachers(command: Command, how: Mapping[str, Any]) -> bool:
    """Return whether a task is set up for a model that teaches: fairseq-train sets up its own without a checkpoint."""
    return command.name == "train" and bool(how.get("from_checkpoint"))


def _examples(dataset: Any, order: int) -> Iterator[dict[str, Any]]:
    """Yield mini-batches of one example each: shortest first for ``order`` 1, longest first for -1."""
    lengths = order * np.asarray(dataset.sizes, np.int64).reshape(len(dataset), -1).max(axis=1)
    yield dataset.collater([dataset[int(lengths.argmin())]])  # mostly enough, and then a large set needs no order
    for index in lengths.argsort(kind="stable")[1:]:
        yield dataset.collater([dataset[int(index)]])


class SupernetTask(LocalTraining, ShardedData, SubnetsOfTask, KnownWords):
    """Mixin that gives a task of fairseq a weight-sharing supernet.

    Training draws its subnets from (seed, update number) only. So all ranks and micro-batches of an update agree, and a
    resumed run continues with the same draws. With ``--subnet-sampling controller`` they also depend on the
    controller's state, which is in the checkpoint. The checkpoint also contains the search space, and fingerprints of
    the dictionaries.

    Attributes:
        name, stock: its own name, and the name of fairseq's task.
        stock_criterion: fairseq's criterion in place of this package's, for a dense model.
        criterions: fairseq's and this package's that fit; empty if most do. Others' are not refused.
        added_symbols: symbols that it adds to a dictionary after reading it.
        arch: name of its supernets.
        examples: description of its sets' examples, for messages.
        option_table: the commands in which its options act.
        metrics_need: the metrics that need an option, for messages.
        predicts_words: whether perplexities have a meaning.
    """

    name: ClassVar[str]
    stock: ClassVar[str]
    arch: ClassVar[str]
    examples: ClassVar[str]
    option_table: ClassVar[OptionTable]
    stock_criterion: ClassVar[str] = "label_smoothed_cross_entropy"
    criterions: ClassVar[tuple[str, ...]] = ()
    added_symbols: ClassVar[tuple[str, ...]] = ()
    metrics_need: ClassVar[str] = "accuracy needs --report-accuracy"
    predicts_words: ClassVar[bool] = True

    def __init__(self, cfg: Any, *dictionaries: Any, **kwargs: Any) -> None:
        super().__init__(cfg, *dictionaries, **kwargs)
        self.cfg = cfg
        self.search_space: SearchSpace | None = None
        self.command = calling_command()
        self._logged_update = -1
        self._is_training = True
        self._has_checkpoint = False
        self._criterion: FairseqCriterion | None = None
        self._bad_losses = BadLosses()
        check_sampling(cfg)
        if cfg.search_space:
            self.search_space = SearchSpace.from_spec(cfg.search_space)
            record_in_config(cfg, "task", "search_space", self.search_space.dumps())

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> "SupernetTask":
        """Set up as fairseq's task does.

        Raises:
            InputError: data are missing, a subnet is invalid, or an option has no effect in this command.
        """
        command = calling_command()
        overrides = command.overrides if command is not None else {}
        # fairseq-validate overrides only what the checkpoint's configuration has
        for name in overrides.keys() & cls.option_table.acts.keys():
            setattr(cfg, name, overrides[name])
        cls.check_data(cfg)
        task = super().setup_task(cfg, **kwargs)
        if task.search_space is not None and not kwargs.get("from_checkpoint"):
            task.check_subnets()
            if str(cfg.subnet_sampling) == "fixed":
                record_in_config(cfg, "task", "subnet", task.subnet.key)
        if task.command is not None and not _is_teachers(task.command, kwargs):
            cls.option_table.check(cfg, task.command)
            if task.command.name == "train":
                at_least(1, log_interval=cfg.log_interval)
            if task.command.name == "validate" and task.command.is_given("subnet"):
                cfg.valid_subnets = cfg.subnet
        return task

    @classmethod
    def dictionary_names(cls, cfg: Any, folder: str) -> tuple[str, ...]:
        """Return the names of the dictionary files in a data ``folder``, one for each stack of its supernets.

        Raises:
            InputError: neither options nor folder identify them.
        """
        raise NotImplementedError

    @classmethod
    def check_data(cls, cfg: Any) -> None:
        """Raise InputError if the first data folder lacks a file that the task needs."""
        raise NotImplementedError

    def load_dataset(self, split, *args, **kwargs) -> None:
        """Load as fairseq's task does. Raises InputError if the split or needed targets are missing."""
        try:
            super().load_dataset(split, *args, **kwargs)
        except FileNotFoundError as error:
            raise InputError(f"{error}: the data folder holds no {split} {self.examples}") from error
        if self.command is not None and self.command.name in ("train", "validate"):
            self.check_targets(split)

    def check_targets(self, split: str) -> None:
        """Raise InputError if the examples of a loaded split have no targets."""

    # --- models and generators -------------------------------------------------------------------------------------

    def build_model(self, cfg, from_checkpoint: bool = False):
        """Build as fairseq's task does, supernets only. In a model from a checkpoint, the subnet of ``--subnet`` is
        active (default: the largest), until the caller chooses another.

        Raises:
            InputError: there is no search space, the model is no supernet, the checkpoint has another space, or a
                subnet is invalid.
        """
        stored: Any = getattr(cfg, "search_space", None)
        if from_checkpoint and not stored:
            raise InputError(
                f"the checkpoint is of arch {getattr(cfg, '_name', None)}, which is no supernet ({self.arch}): "
                f"use --task {self.stock}"
            )
        if from_checkpoint:
            stored = SearchSpace.from_spec(stored)
            if self.search_space is None:
                self.search_space = stored
            elif difference := stored.difference(self.search_space):
                if self._has_checkpoint:
                    raise InputError(
                        f"path: its supernets have different search spaces (a later one against the first): "
                        f"{difference}; an ensemble of their subnets takes exported ones"
                    )
                raise InputError(
                    f"search_space is not the checkpoint's (checkpoint against --search-space): {difference}"
                )
            self._has_checkpoint = True
        space = self._space()
        self._is_training = not from_checkpoint
        if not from_checkpoint:
            check_launch(self.cfg.ddp_backend)
            if self.command is not None and hasattr(cfg, "mos_routing"):
                check_experts(cfg)
            record_in_config(cfg, "model", "search_space", space.dumps())
        model = super().build_model(cfg, from_checkpoint)
        if not hasattr(model, "set_active_subnet"):
            raise InputError(
                f"arch is {cfg._name}: {self.name} trains supernets (--arch {self.arch}); "
                f"for other models use --task {self.stock}"
            )
        logger.info("search space with %.3g subnets: %s", space.size, space.dumps())
        if from_checkpoint:
            model.set_active_subnet(self._subnet_of_checkpoint())
        else:
            logger.info(parameter_summary(model))
            if self.trains_locally:
                cfg = self.cfg
                model.local_rounds = LocalRounds(cfg.local_updates, str(cfg.local_average), str(cfg.local_moments))
            self._start_controller(model)
        return model

    def _subnet_of_checkpoint(self) -> Subnet:
        """Return the subnet of ``--subnet``. A file that training recorded, as version 0.1.0 did, may be gone."""
        try:
            return self.subnet
        except InputError as error:
            chosen_now = self.command is not None and (
                self.command.name != "validate" or self.command.is_given("subnet")
            )
            if chosen_now:
                raise
            logger.warning("%s: the largest subnet is active", error)
            return self._space().largest()

    def build_generator(self, models, args, *more, **kwargs):
        """Build as fairseq does, for the active subnet of each model."""
        if not models[0].training:  # --eval-bleu builds a generator before training, for all validation subnets
            logger.info("generating with subnet %s", models[0].describe_active_subnet())
        return super().build_generator(models, args, *more, **kwargs)

    def build_criterion(self, cfg, *args, **kwargs):
        """As fairseq's. Raises InputError for one that supernets do not offer."""
        name = getattr(cfg, "_name", None) or cfg.criterion
        known = CRITERION_REGISTRY.get(name)
        if self.criterions and name not in self.criterions and known and known.__module__.startswith("fairseq."):
            raise InputError(f"criterion is {name}: {self.name} takes {', '.join(self.criterions)}")
        if name == "adaptive_loss":
            raise InputError("criterion is adaptive_loss: supernets have no adaptive softmax")
        self._criterion = super().build_criterion(cfg, *args, **kwargs)
        return self._criterion

    @same_batches
    def get_batch_iterator(self, dataset, *args, required_batch_size_multiple=1, **kwargs):
        """Return fairseq's iterator, but read every set completely, except --train-subset in training. fairseq leaves
        out a last batch that is no multiple of --required-batch-size-multiple (8 by default), and with it the longest
        sentences."""
        if not self._is_training or dataset is not self.datasets.get(self.cfg.train_subset):
            required_batch_size_multiple = 1
        return super().get_batch_iterator(
            dataset, *args, required_batch_size_multiple=required_batch_size_multiple, **kwargs
        )

    def filter_indices_by_size(self, indices, dataset, max_positions=None, *args, **kwargs):
        """Filter as fairseq does. Raises InputError if a sentence is too long and --skip-invalid-size-inputs-valid-test
        is not given (in training, fairseq skips such sentences and logs their number), or all are."""
        try:
            kept = super().filter_indices_by_size(indices, dataset, max_positions, *args, **kwargs)
        except Exception as error:
            if not str(error).startswith("Size of sample"):
                raise
            raise InputError(" ".join(str(error).split())) from error
        if len(kept) == 0 < len(indices) and not self._shards:
            found = [name for name, known in self.datasets.items() if known is dataset]
            raise InputError(
                f"data is {self.cfg.data}: none of {len(indices)} examples of {', '.join(found) or 'a set'} is short "
                f"enough; {max_positions} tokens are allowed by --max-tokens, the task and the model"
            )
        return kept

    # --- training --------------------------------------------------------------------------------------------------

    @cached_property
    def _sampling(self) -> SubnetSampling:
        space, schedule = self._space(), self.elastic_schedule
        return SubnetSampling(space, self.cfg, schedule, lambda: self.subnet, self._controller)

    def training_subnets(self, update_num: int) -> list[tuple[str, Subnet]]:
        """Return (name, subnet) of the subnets that train in this update, see :class:`SubnetSampling`."""
        return self._sampling.subnets(update_num)

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """Run forward and backward of every subnet of this update on the same mini-batch (sandwich rule: BigNAS, arXiv
        2003.11142). Gradients and sample sizes are summed, so the average gradient is applied."""
        self._bad_losses.tell()  # early: fairseq may repeat the step to find values that are not finite
        self._learn(model, criterion, update_num)
        if self._drawn is None or self._drawn[0] != update_num:  # once for all mini-batches of the update
            self._drawn = update_num, self.training_subnets(update_num)
        subnets = self._drawn[1]
        self._log_subnets(update_num, subnets)
        if hasattr(criterion, "teach"):
            # in place, the largest subnet comes first and teaches the others
            if criterion.in_place and subnets[0][1] != self._space().largest():
                first = f"{subnets[0][0]}: {subnets[0][1].summary()}"
                raise RuntimeError(f"update {update_num + 1}: the largest subnet teaches, but the first is {first}")
            criterion.teach(len(subnets) - 1, update_num)
        logs, losses, total_size = [], [], 0
        # an empty mini-batch of fairseq's has gradients of zeros, by which an optimizer would move a layer
        missing = [p for p in model.parameters() if p.grad is None] if ignore_grad else []
        with keep_active_subnet(model):
            for name, subnet in subnets:
                model.set_active_subnet(subnet)
                step = super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
                loss, sample_size, log = step
                total_size += sample_size
                losses.append(loss.detach())
                logs.append((name, log))
        for parameter in missing:
            parameter.grad = None
        if self.trains_locally:
            model.note_tokens(0 if ignore_grad else total_size)
        self._bad_losses.watch(update_num, subnets, losses)
        return sum(losses) / len(subnets), total_size, merge_logs(logs)

    def _log_subnets(self, update_num: int, subnets: list[tuple[str, Subnet]]) -> None:
        turns = 2 if str(self.cfg.subnet_sampling) == "alternate" else 1  # log both kinds of updates
        if update_num % self.cfg.log_interval >= turns or update_num == self._logged_update:
            return
        self._logged_update = update_num
        logger.info(
            "update %d trains %s",
            update_num + 1,
            "; ".join(f"{n}: {s.summary()}" if n in ("random", "fixed") else n for n, s in subnets),
        )

    # --- validation ------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch, model) -> None:
        """Begin as fairseq does. At the first epoch, raises InputError for an unmeasured --best-checkpoint-metric."""
        super().begin_epoch(epoch, model)
        self.check_local_training()
        if self.cfg.subnets_per_rank and data_parallel_size() == 1:
            raise InputError("subnets_per_rank is True: it has no effect in one process")
        if self._controller is not None:
            self._compared_on(model)  # fail early if that set is missing
        criterion, self._criterion = self._criterion, None
        if criterion is None:  # not the first epoch
            return
        valid_subset = self.cfg.valid_subset.split(",")[0]
        for subset in (valid_subset,) if self._shards else (self.cfg.train_subset, valid_subset):
            self._check_words(subset, criterion)
        dataset = self.datasets.get(valid_subset)
        if not dataset:  # no validation
            return
        metric = self.cfg.best_checkpoint_metric
        warn_of_direction(metric, self.cfg.maximize_best_checkpoint_metric)
        if metric not in ("loss", *(f"loss_{name}" for name in self.valid_subnets)):  # logged by every criterion
            measured = self._measured_metrics(dataset, model, criterion)
            check_metric(metric, measured, self.valid_subnets, self.metrics_need)

    def _check_words(self, subset: str, criterion: Any) -> None:
        """Raise InputError if a loaded set has nothing to predict: every loss would be 0 or not a number."""
        dataset = self.datasets.get(subset)
        if dataset and not any(self.has_targets(sample, criterion) for sample in _examples(dataset, -1)):
            why = self.nothing_to_predict(criterion)
            raise InputError(f"data is {self.cfg.data}: {subset} has nothing to predict{why}")

    def nothing_to_predict(self, criterion: Any) -> str:
        """Return the end of a message: which option leaves nothing to predict."""
        skip = getattr(criterion, "ignore_prefix_size", 0)
        return f" with ignore_prefix_size {skip}" if skip else ""

    def _measured_metrics(self, dataset, model, criterion) -> set[str]:
        """Return the names of the metrics that validation logs, by validating a short example with words to predict."""
        sample = next(sample for sample in _examples(dataset, 1) if self.has_targets(sample, criterion))
        sample = utils.apply_to_sample(lambda tensor: tensor.to(next(model.parameters()).device), sample)
        _, _, log = self._validate(partial(FairseqTask.valid_step, self), sample, model, criterion.eval())
        with metrics.aggregate(new_root=True) as found:
            self.reduce_metrics([log], criterion)
            return set(found.get_smoothed_values())

    def has_targets(self, sample: dict[str, Any], criterion: Any) -> bool:
        """Return whether a mini-batch has anything to predict."""
        skip = getattr(criterion, "ignore_prefix_size", 0)
        return bool(sample["target"][:, skip:].ne(criterion.padding_idx).any())

    def valid_step(self, sample, model, criterion):
        """Return loss and other metrics of each validation subnet; the loss is their mean.

        The active subnet is restored."""
        return self._validate(super().valid_step, sample, model, criterion)

    def _validate(self, step: Callable[..., tuple], sample, model, criterion) -> tuple:
        logs, total_loss = [], 0.0
        with keep_active_subnet(model):
            for name, subnet in self.valid_subnets.items():
                model.set_active_subnet(subnet)
                loss, sample_size, log = step(sample, model, criterion)
                total_loss += loss
                logs.append((name, log))
        return total_loss / len(logs), sample_size, merge_logs(logs)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion) -> None:
        """Log fairseq's metrics of the mean over subnets, and ``loss_NAME``, ``nll_loss_NAME``, ``ppl_NAME`` (and
        ``accuracy_NAME``) of each subnet."""
        self._bad_losses.tell()
        FairseqTask.reduce_metrics(self, logging_outputs, criterion)
        reduce_subnet_metrics(logging_outputs, self.predicts_words)
