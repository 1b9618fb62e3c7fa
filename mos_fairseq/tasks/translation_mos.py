"""``translation_mos``: fairseq's translation task for supernets: which subnets train, validate and generate."""

import json
import logging
import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Optional

from fairseq import utils
from fairseq.data.data_utils import infer_language_pair
from fairseq.dataclass import ChoiceEnum
from fairseq.file_io import PathManager
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from mos_fairseq.distributed import check_launch, data_parallel_rank
from mos_fairseq.errors import InputError
from mos_fairseq.models.transformer_config import record_in_config
from mos_fairseq.search_space import ElasticSchedule, SearchSpace, Subnet, resolve_subnet, split_specs, subnet_name
from mos_fairseq.tasks.same_batches import same_batches
from mos_fairseq.tasks.subnet_metrics import merge_logs, reduce_subnet_metrics, warn_of_bad_losses

logger = logging.getLogger(__name__)


@dataclass
class TranslationMosConfig(TranslationConfig):
    """fairseq's translation options and the supernet's."""

    search_space: Optional[str] = field(
        default=None,
        metadata={"help": "preset name or YAML file; needed for training, read from the checkpoint otherwise"},
    )
    subnet_sampling: ChoiceEnum(["sandwich", "random", "largest", "smallest", "fixed"]) = field(
        default="sandwich",
        metadata={
            "help": "subnets trained in each update: sandwich (largest, random ones, smallest; gradients averaged), "
            "random, largest, smallest, or the fixed one of --subnet"
        },
    )
    num_random_subnets: int = field(
        default=1, metadata={"help": "random subnets in each update of sandwich and random sampling"}
    )
    elastic_from: Optional[str] = field(
        default=None,
        metadata={
            "help": "progressive shrinking: KEY:UPDATES,... keeps a dimension at its largest for that "
            "many updates; KEY:UPDATES:UPDATES... adds one choice at a time (default: all elastic from the start)"
        },
    )
    subnets_per_rank: bool = field(
        default=False,
        metadata={"help": "data parallel processes train different random subnets in the same update"},
    )
    subnet: Optional[str] = field(
        default=None,
        metadata={
            "help": "subnet that generates (default: largest) or, with --subnet-sampling fixed, trains: "
            "largest, smallest, random:SEED, or a YAML file"
        },
    )
    valid_subnets: str = field(
        default="largest,smallest", metadata={"help": "subnets to validate, comma-separated, as for --subnet"}
    )
    seed: int = II("common.seed")
    log_interval: int = II("common.log_interval")
    ddp_backend: str = II("distributed_training.ddp_backend")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")


def _check_json(name: str, text: str | None) -> None:
    """Raise InputError unless ``text`` holds a JSON object."""
    try:
        valid = isinstance(json.loads(text), dict)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise InputError(f'{name} is {text}: allowed is a JSON object, as in \'{{"beam": 4, "lenpen": 0.6}}\'')


def _check_data(cfg: TranslationConfig) -> None:
    """Raise InputError where the first data folder lacks what the translation task reads from it."""
    folder = next(iter(utils.split_paths(cfg.data or "")), "")
    if not PathManager.exists(folder):
        raise InputError(f"data is {folder or 'not given'}: no such folder (fairseq-preprocess makes them)")
    languages = [cfg.source_lang, cfg.target_lang]
    if None in languages:
        languages = infer_language_pair(folder)
    if None in languages:
        raise InputError(
            f"data is {folder}: no file's name tells the languages, give --source-lang and --target-lang, "
            "or a folder that fairseq-preprocess made"
        )
    for language in languages:
        if not PathManager.exists(path := os.path.join(folder, f"dict.{language}.txt")):
            raise InputError(f"data is {folder}: it lacks {os.path.basename(path)}, which fairseq-preprocess makes")


@register_task("translation_mos", dataclass=TranslationMosConfig)
class TranslationMosTask(TranslationTask):
    """Translation with a weight-sharing supernet (``--arch transformer_mos``).

    Training draws its subnets from (seed, update number) alone: all ranks and micro-batches of an update agree, and a
    resumed run goes on with the same draws. The search space travels in the checkpoint.
    """

    cfg: TranslationMosConfig

    def __init__(self, cfg: TranslationMosConfig, src_dict, tgt_dict) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.search_space: SearchSpace | None = None
        self._logged_update = -1
        if cfg.num_random_subnets < 1:
            raise InputError(f"num_random_subnets is {cfg.num_random_subnets}: allowed are whole numbers from 1 up")
        if str(cfg.subnet_sampling) == "fixed" and not cfg.subnet:
            raise InputError("subnet_sampling is fixed but no subnet is given: add --subnet SUBNET")
        if cfg.subnets_per_rank and str(cfg.subnet_sampling) not in ("sandwich", "random"):
            raise InputError(
                f"subnets_per_rank is given with subnet_sampling {cfg.subnet_sampling}, which draws no random subnets: "
                "allowed are sandwich, random"
            )
        for name in ("eval_bleu_args", "eval_bleu_detok_args"):
            _check_json(name, getattr(cfg, name))
        if cfg.search_space:
            self.search_space = SearchSpace.from_spec(cfg.search_space)
            record_in_config(cfg, "task", "search_space", self.search_space.dumps())

    @classmethod
    def setup_task(cls, cfg: TranslationMosConfig, **kwargs) -> "TranslationMosTask":
        """As the translation task's.

        Raises:
            InputError: the data folder, a dictionary or the languages are missing, or a subnet is bad.
        """
        _check_data(cfg)
        task = super().setup_task(cfg, **kwargs)
        if task.search_space is not None and not kwargs.get("from_checkpoint"):
            _ = task.valid_subnets, task.subnet, task.elastic_schedule  # bad ones are told now
        return task

    def load_dataset(self, split, *args, **kwargs) -> None:
        """As the translation task's. Raises InputError where the split is missing."""
        try:
            super().load_dataset(split, *args, **kwargs)
        except FileNotFoundError as error:
            raise InputError(f"{error}: the data folder holds no {split} pairs of these languages") from error

    # Resolved when first used: a checkpoint remembers the files named in training, and has to load without them.
    @cached_property
    def valid_subnets(self) -> dict[str, Subnet]:
        """Validation subnets by name. Raises InputError for bad specs."""
        specs = split_specs(self.cfg.valid_subnets)
        return {subnet_name(spec): resolve_subnet(spec, self.search_space) for spec in specs}

    @cached_property
    def subnet(self) -> Subnet:
        """The subnet of ``--subnet`` (default: the largest). Raises InputError for a bad spec."""
        return resolve_subnet(self.cfg.subnet or "largest", self.search_space)

    @cached_property
    def elastic_schedule(self) -> ElasticSchedule | None:
        """That of ``--elastic-from``. Raises InputError where it is bad, or where no subnet is drawn."""
        if not self.cfg.elastic_from:
            return None
        if (sampling := str(self.cfg.subnet_sampling)) in ("largest", "fixed"):
            raise InputError(f"elastic_from is given, but with subnet_sampling {sampling} nothing is ever elastic")
        return ElasticSchedule.from_spec(self.cfg.elastic_from, self.search_space)

    # --- models and generators -------------------------------------------------------------------------------------

    def build_model(self, cfg, from_checkpoint: bool = False):
        """As the translation task's, for supernets only.

        Raises:
            InputError: no search space, a model that is no supernet, a checkpoint of another space, or a best
                checkpoint's metric that is not measured.
        """
        stored = getattr(cfg, "search_space", None)
        if from_checkpoint and not stored:
            raise InputError(
                f"the checkpoint is of arch {getattr(cfg, '_name', None)}, which is no supernet (transformer_mos): "
                "use --task translation"
            )
        if from_checkpoint:
            stored = SearchSpace.from_spec(stored)
            if self.search_space is None:
                self.search_space = stored
            elif difference := stored.difference(self.search_space):
                raise InputError(
                    f"search_space is not the checkpoint's (checkpoint against --search-space): {difference}"
                )
        if self.search_space is None:
            raise InputError(
                "translation_mos needs --search-space: a preset "
                f"({', '.join(SearchSpace.preset_names())}) or a YAML file"
            )
        if not from_checkpoint:
            check_launch(self.cfg.ddp_backend)
            self._check_best_metric()
            record_in_config(cfg, "model", "search_space", self.search_space.dumps())
        model = super().build_model(cfg, from_checkpoint)
        if not hasattr(model, "set_active_subnet"):
            raise InputError(
                f"arch is {cfg._name}: translation_mos trains supernets (--arch transformer_mos); "
                "for other models use --task translation"
            )
        logger.info("search space with %.3g subnets: %s", self.search_space.size, self.search_space.dumps())
        return model

    def _check_best_metric(self) -> None:
        """Refuse at once what would stop the training at its first validation."""
        kinds = ("loss", "nll_loss", "ppl", *(["bleu"] if self.cfg.eval_bleu else []))
        metric, names = self.cfg.best_checkpoint_metric, ", ".join(self.valid_subnets)
        known = {*kinds, *(f"{kind}_{name}" for kind in kinds for name in self.valid_subnets)}
        if metric.startswith(("loss_", "nll_loss_", "ppl_", "bleu")) and metric not in known:
            raise InputError(
                f"best_checkpoint_metric is {metric}: measured are {', '.join(kinds)}, each also with _NAME for "
                f"NAME one of {names} (see --valid-subnets; bleu needs --eval-bleu)"
            )

    def build_generator(self, models, args, *more, **kwargs):
        """As fairseq's, with ``--subnet`` (default: largest) active in every model."""
        for model in models:
            model.set_active_subnet(self.subnet)
        if not models[0].training:  # --eval-bleu builds a generator before training, for whatever is validated
            logger.info("generating with subnet %s: %s", self.cfg.subnet or "largest", self.subnet.summary())
        return super().build_generator(models, args, *more, **kwargs)

    @same_batches
    def get_batch_iterator(self, dataset, *args, required_batch_size_multiple=1, **kwargs):
        """As fairseq's, but every set other than --train-subset is seen whole: where the last batch is no multiple of
        --required-batch-size-multiple (8 by default), fairseq leaves it out, and with it the longest sentences."""
        if dataset is not self.datasets.get(self.cfg.train_subset):
            required_batch_size_multiple = 1
        return super().get_batch_iterator(
            dataset, *args, required_batch_size_multiple=required_batch_size_multiple, **kwargs
        )

    def filter_indices_by_size(self, *args, **kwargs):
        """As fairseq's. Raises InputError where a sentence is too long and --skip-invalid-size-inputs-valid-test is
        not given (in training, fairseq leaves such sentences out and says how many)."""
        try:
            return super().filter_indices_by_size(*args, **kwargs)
        except Exception as error:
            if not str(error).startswith("Size of sample"):
                raise
            raise InputError(" ".join(str(error).split())) from error

    # --- training --------------------------------------------------------------------------------------------------

    def training_subnets(self, update_num: int) -> list[tuple[str, Subnet]]:
        """(name, subnet) of those that train in this update; a function of seed and update number, and with
        ``--subnets-per-rank`` of the process's rank.

        With --elastic-from they are of the space as far as it is elastic by then; while nothing is, sandwich and random
        sampling train the largest subnet alone.
        """
        space, sampling = self.search_space, str(self.cfg.subnet_sampling)
        if self.elastic_schedule is not None:
            space = self.elastic_schedule.space_at(update_num)
            if space.size == 1:
                return [("largest", space.largest())]
        first = data_parallel_rank() * self.cfg.num_random_subnets if self.cfg.subnets_per_rank else 0

        def random_ones() -> list[tuple[str, Subnet]]:
            return [
                ("random", space.sample_subnet("train", self.cfg.seed, update_num, first + i))
                for i in range(self.cfg.num_random_subnets)
            ]

        largest, smallest = ("largest", space.largest()), ("smallest", space.smallest())
        if sampling == "sandwich":
            return [largest, *random_ones(), smallest]
        if sampling == "random":
            return random_ones()
        return [{"largest": largest, "smallest": smallest, "fixed": ("fixed", self.subnet)}[sampling]]

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """Forward and backward of every subnet of this update on the same mini-batch (sandwich rule: BigNAS, arXiv
        2003.11142). The gradients add up; the sample size returned is the sum too, so their average is applied."""
        subnets = self.training_subnets(update_num)
        self._log_subnets(update_num, subnets)
        if hasattr(criterion, "teach"):  # in-place distillation: the largest subnet, the first, teaches the others
            if subnets[0][1] != self.search_space.largest():
                first = f"{subnets[0][0]}: {subnets[0][1].summary()}"
                raise RuntimeError(f"update {update_num + 1}: the largest subnet teaches, but the first is {first}")
            criterion.teach(len(subnets) - 1, update_num)
        logs, losses, total_size = [], [], 0
        for name, subnet in subnets:
            model.set_active_subnet(subnet)
            loss, sample_size, log = super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
            total_size += sample_size
            losses.append(loss.detach())
            logs.append((name, log))
        warn_of_bad_losses(update_num, subnets, losses)
        return sum(losses) / len(subnets), total_size, merge_logs(logs)

    def _log_subnets(self, update_num: int, subnets: list[tuple[str, Subnet]]) -> None:
        if update_num % self.cfg.log_interval or update_num == self._logged_update:
            return
        self._logged_update = update_num
        logger.info(
            "update %d trains %s",
            update_num + 1,
            "; ".join(f"{n}: {s.summary()}" if n in ("random", "fixed") else n for n, s in subnets),
        )

    # --- validation ------------------------------------------------------------------------------------------------

    def valid_step(self, sample, model, criterion):
        """Loss (and, with ``--eval-bleu``, BLEU counts) of each validation subnet; the loss returned is their mean."""
        logs, total_loss = [], 0.0
        for name, subnet in self.valid_subnets.items():
            model.set_active_subnet(subnet)
            loss, sample_size, log = super().valid_step(sample, model, criterion)
            total_loss += loss
            logs.append((name, log))
        return total_loss / len(logs), sample_size, merge_logs(logs)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion) -> None:
        """fairseq's metrics of the mean over subnets, and ``loss_NAME``, ``nll_loss_NAME``, ``ppl_NAME`` (and
        ``bleu_NAME``) of each subnet."""
        super(TranslationTask, self).reduce_metrics(logging_outputs, criterion)
        reduce_subnet_metrics(logging_outputs)
