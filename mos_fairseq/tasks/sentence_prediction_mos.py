"""``sentence_prediction_mos``: fairseq's task that classifies sentences or pairs, for supernets.

A supernet of masked language models becomes one of classifiers: all of its subnets are fine-tuned at once (InstaTune,
arXiv 2308.15609), and none needs training after the search.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

from fairseq.data import Dictionary, data_utils
from fairseq.data.indexed_dataset import infer_dataset_impl
from fairseq.tasks import register_task
from fairseq.tasks.sentence_prediction import SentencePredictionConfig, SentencePredictionTask

from mos_fairseq.errors import InputError
from mos_fairseq.predictions import class_names
from mos_fairseq.tasks.options import OptionTable, supernet_options
from mos_fairseq.tasks.supernet_config import SupernetTaskConfig
from mos_fairseq.tasks.supernet_task import SupernetTask

logger = logging.getLogger(__name__)

_INPUT, _SECOND, _LABEL = "input0", "input1", "label"
CLASSES = "classes"
"""Key of the task's state in a checkpoint: names of the classes, their number, and the head's name."""


@dataclass
class SentencePredictionMosConfig(SupernetTaskConfig, SentencePredictionConfig):
    """Options of fairseq's sentence prediction and of the supernet."""

    # options of fairseq's own criterion, which others lack
    classification_head_name: str = (
        "${oc.select:criterion.classification_head_name,sentence_classification_head}"  # as fairseq's default
    )
    regression_target: Any = "${oc.select:criterion.regression_target,false}"  # fairseq takes any text for True


_COMMANDS = ("train", "validate")
_ACTS, _NEEDS = supernet_options(_COMMANDS)


def _told(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def labels_of(folder: str) -> list[str]:
    """Return the names of the classes in a data folder, in order."""
    return class_names(Dictionary.load(os.path.join(folder, _LABEL, "dict.txt")))


@register_task("sentence_prediction_mos", dataclass=SentencePredictionMosConfig)
class SentencePredictionMosTask(SupernetTask, SentencePredictionTask):
    """Classification with a weight-sharing supernet (``--arch roberta_mos``).

    All subnets share one classification head, of which narrower subnets take a part.
    """

    name, stock, arch = "sentence_prediction_mos", "sentence_prediction", "roberta_mos"
    stock_criterion = "sentence_prediction"
    criterions = ("sentence_prediction", "distillation_mos", "label_smoothed_cross_entropy_mos")
    examples = "text"
    added_symbols = ("<mask>",)
    metrics_need = "all are measured"
    predicts_words = False
    option_table = OptionTable(
        acts={
            "data": _COMMANDS,
            "num_classes": ("train",),  # otherwise the checkpoint's
            "init_token": _COMMANDS,
            "separator_token": _COMMANDS,
            "no_shuffle": ("train",),
            "shorten_method": _COMMANDS,
            "shorten_data_split_list": _COMMANDS,
            "add_prev_output_tokens": (),  # for decoders
            "max_positions": _COMMANDS,
            "d2v2_multi": (),  # of data2vec
        }
        | _ACTS
        | {"shard_data": ()},  # fairseq's task reads one folder
        needs=_NEEDS,
    )

    @classmethod
    def dictionary_names(cls, cfg: SentencePredictionMosConfig, folder: str) -> tuple[str]:
        """Return the name of the dictionary of the text."""
        return (os.path.join(_INPUT, "dict.txt"),)

    @classmethod
    def check_data(cls, cfg: SentencePredictionMosConfig) -> None:
        """Raise InputError if a dictionary is missing, the classes are not given or fewer than the labels, or a special
        token is no word's number."""
        for column in (_INPUT, _LABEL):
            if not os.path.isfile(os.path.join(cfg.data, column, "dict.txt")):
                raise InputError(
                    f"data is {cfg.data}: it lacks {column}/dict.txt (fairseq-preprocess --only-source makes a folder "
                    f"{_INPUT} of the text, input1 of the second text of pairs, and {_LABEL})"
                )
        labels, words = len(labels_of(cfg.data)), len(cls.load_dictionary(os.path.join(cfg.data, _INPUT, "dict.txt")))
        for name in ("init_token", "separator_token"):
            if (token := getattr(cfg, name)) is not None and not 0 <= token < words:
                raise InputError(f"{name} is {token}: {cfg.data}/{_INPUT}/dict.txt has the numbers 0 to {words - 1}")
        if cfg.num_classes < max(labels, 1):
            raise InputError(f"num_classes is {cfg.num_classes}: {cfg.data}/{_LABEL}/dict.txt has {labels} labels")

    @classmethod
    def setup_task(cls, cfg: SentencePredictionMosConfig, **kwargs: Any) -> "SentencePredictionMosTask":
        """As :meth:`SupernetTask.setup_task`. Raises InputError for a regression, too."""
        if cfg.regression_target:
            raise InputError(
                f"regression_target is True: {cls.name} predicts classes; fine-tune an exported subnet by {cls.stock}"
            )
        return super().setup_task(cfg, **kwargs)

    def build_criterion(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`SupernetTask.build_criterion`. Raises InputError for scores that are not measured, too."""
        for score in ("report_mcc", "report_acc_and_f1", "report_pearson_and_spearman"):
            if getattr(cfg, score, False):
                raise InputError(f"{score} is True: of subnets, {self.name} measures loss and accuracy")
        return super().build_criterion(cfg, *args, **kwargs)

    def load_dataset(self, split: str, *args: Any, combine: bool = False, **kwargs: Any) -> None:
        """As :meth:`SupernetTask.load_dataset`. Raises InputError if a line of labels is not one known label, too."""
        columns = [_INPUT, *([_SECOND] if os.path.isdir(os.path.join(self.cfg.data, _SECOND)) else []), _LABEL]
        lengths = {}
        for column in columns:
            path = os.path.join(self.cfg.data, column, split)
            if infer_dataset_impl(path) is None:
                raise InputError(f"data is {self.cfg.data}: {column} holds no {split}")
            words = self.label_dictionary if column == _LABEL else self.source_dictionary
            found = data_utils.load_indexed_dataset(path, words, combine=combine)
            lengths[column] = len(found)
            if column == _LABEL:
                self._check_labels(split, found)
        if len({*lengths.values()}) > 1:
            lines = ", ".join(f"{column} {length}" for column, length in lengths.items())
            raise InputError(
                f"data is {self.cfg.data}: the columns of {split} differ in their numbers of lines: {lines}"
            )
        super().load_dataset(split, *args, combine=combine, **kwargs)

    def _check_labels(self, split: str, found: Any) -> None:
        words = self.label_dictionary
        last = words.nspecial + self.cfg.num_classes
        for number in range(len(found)):
            label = found[number][found[number] != words.eos()].tolist()
            if len(label) != 1 or not words.nspecial <= label[0] < last:
                text = words.string(label) or "empty"
                raise InputError(
                    f"data is {self.cfg.data}: line {number + 1} of {split} in {_LABEL} is {text}: allowed is one of "
                    f"{', '.join(class_names(words))}"
                )

    # --- the classes in checkpoints ----------------------------------------------------------------------------------

    def _classes(self) -> dict[str, Any]:
        names, cfg = class_names(self.label_dictionary), self.cfg
        return {
            "labels": names,
            "num_classes": cfg.num_classes,
            "classification_head_name": cfg.classification_head_name,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state of a supernet's task, and the classes."""
        return super().state_dict() | {CLASSES: self._classes()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load as a supernet's task does. Raises InputError if the checkpoint has other classes, or another head."""
        rest = dict(state_dict)
        theirs, mine = rest.pop(CLASSES, {}), self._classes()
        for name, value in theirs.items():
            if mine.get(name, value) != value:
                raise InputError(self._other(name, mine[name], value))
        super().load_state_dict(rest)

    def compare_with_start(self, state_dict: dict[str, Any]) -> None:
        """Warn as a supernet's task does, and if the checkpoint's head, which is taken, has other labels."""
        super().compare_with_start(state_dict)
        theirs, mine = state_dict.get(CLASSES, {}), self._classes()
        if [name for name, value in mine.items() if theirs.get(name) != value] == ["labels"]:
            told = self._other("labels", mine["labels"], theirs["labels"])
            logger.warning("%s; its classification head is taken row by row", told)

    def _other(self, name: str, mine: Any, theirs: Any) -> str:
        what = f"data is {self.cfg.data}: its labels are" if name == "labels" else f"{name} is"
        return f"{what} {_told(mine)}, the checkpoint's {_told(theirs)}"

    def has_targets(self, sample: dict[str, Any], criterion: Any) -> bool:
        """Return True: each example has a class."""
        return True
