"""Options of ``translation_mos``, and checks of fairseq's own options of the translation task."""

import os
from dataclasses import dataclass, field

from fairseq.data.data_utils import infer_language_pair
from fairseq.file_io import PathManager
from fairseq.tasks.translation import TranslationConfig

from mos_fairseq.errors import InputError
from mos_fairseq.tasks.monolingual_data import checked_folder
from mos_fairseq.tasks.options import VALIDATES, OptionTable, supernet_options
from mos_fairseq.tasks.supernet_config import SupernetTaskConfig

_COMMANDS = ("train", "generate", "interactive", "validate")
_READS_PAIRS = ("train", "generate", "validate")
_ACTS, _NEEDS = supernet_options(_COMMANDS)
OPTION_TABLE = OptionTable(
    acts={
        "data": _COMMANDS,
        "source_lang": _COMMANDS,
        "target_lang": _COMMANDS,
        "load_alignments": VALIDATES,  # read by a criterion
        "left_pad_source": _READS_PAIRS,  # fairseq-interactive pads on the left
        "left_pad_target": _READS_PAIRS,
        "max_source_positions": _COMMANDS,
        "max_target_positions": _READS_PAIRS,
        "upsample_primary": ("train",),
        "truncate_source": _READS_PAIRS,
        "num_batch_buckets": _READS_PAIRS,
        "eval_bleu": VALIDATES,
        "eval_bleu_args": VALIDATES,
        "eval_bleu_detok": VALIDATES,
        "eval_bleu_detok_args": VALIDATES,
        "eval_tokenized_bleu": VALIDATES,
        "eval_bleu_remove_bpe": VALIDATES,
        "eval_bleu_print_samples": VALIDATES,
    }
    | _ACTS,
    needs={
        "eval_bleu_args": (None, "eval_bleu", (True,)),
        "eval_bleu_detok": (None, "eval_bleu", (True,)),
        "eval_bleu_detok_args": (None, "eval_bleu", (True,)),
        "eval_tokenized_bleu": (None, "eval_bleu", (True,)),
        "eval_bleu_remove_bpe": (None, "eval_bleu", (True,)),
        "eval_bleu_print_samples": (None, "eval_bleu", (True,)),
    }
    | _NEEDS,
)


@dataclass
class TranslationMosConfig(SupernetTaskConfig, TranslationConfig):
    """Options of fairseq's translation and of the supernet."""

    # fairseq's default is -1, with which it cannot join train and train1
    upsample_primary: int = field(
        default=1, metadata={"help": "take the sentences of train N times, beside those of train1, train2 and so on"}
    )


def check_data(cfg: TranslationConfig) -> None:
    """Raise InputError if a data folder is missing, or the first lacks a file that the translation task needs."""
    folder = checked_folder(cfg.data, "fairseq-preprocess makes them")
    for name in dictionary_names(cfg, folder):
        if not PathManager.exists(os.path.join(folder, name)):
            raise InputError(f"data is {folder}: it lacks {name}, which fairseq-preprocess makes")


def dictionary_names(cfg: TranslationConfig, folder: str) -> tuple[str, str]:
    """Return the names of the dictionary files in a data ``folder``: of the source, of the target. Raises InputError if
    neither options nor files identify the languages."""
    languages = [cfg.source_lang, cfg.target_lang]
    if None in languages:
        found = infer_language_pair(folder)
        for option, given, language in zip(("source_lang", "target_lang"), languages, found, strict=True):
            if None not in (given, language) and given != language:
                raise InputError(f"{option} is {given}: {folder} has {'-'.join(found)}; give both languages")
        languages = found
    if None in languages:
        raise InputError(
            f"data is {folder}: no file name has the languages; it needs the sentence pairs of fairseq-preprocess, or "
            "--source-lang and --target-lang (options of fairseq's commands)"
        )
    source, target = languages
    return f"dict.{source}.txt", f"dict.{target}.txt"
