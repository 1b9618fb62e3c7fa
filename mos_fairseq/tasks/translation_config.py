"""Options of ``translation_mos``, and checks of fairseq's own options of the translation task."""

import json
import os
from dataclasses import dataclass, field
from typing import Optional

from fairseq import utils
from fairseq.data.data_utils import infer_language_pair
from fairseq.dataclass import ChoiceEnum
from fairseq.file_io import PathManager
from fairseq.tasks.translation import TranslationConfig
from omegaconf import II

from mos_fairseq.errors import InputError


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
            "help": "subnet that generates (default: largest), that fairseq-validate measures (default: "
            "--valid-subnets) or, with --subnet-sampling fixed, trains: largest, smallest, random:SEED, or a YAML file"
        },
    )
    valid_subnets: str = field(
        default="largest,smallest", metadata={"help": "subnets to validate, comma-separated, as for --subnet"}
    )
    seed: int = II("common.seed")
    log_interval: int = II("common.log_interval")
    ddp_backend: str = II("distributed_training.ddp_backend")
    valid_subset: str = II("dataset.valid_subset")
    best_checkpoint_metric: str = II("checkpoint.best_checkpoint_metric")
    maximize_best_checkpoint_metric: bool = II("checkpoint.maximize_best_checkpoint_metric")


def check_json(name: str, text: str | None) -> None:
    """Raise InputError unless ``text`` holds a JSON object."""
    try:
        valid = isinstance(json.loads(text), dict)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise InputError(f'{name} is {text}: allowed is a JSON object, as in \'{{"beam": 4, "lenpen": 0.6}}\'')


def check_data(cfg: TranslationConfig) -> None:
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
