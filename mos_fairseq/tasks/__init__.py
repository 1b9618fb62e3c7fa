"""Tasks registered with fairseq: one for each family, and one of classifiers."""

from mos_fairseq.tasks.controller import CONTROLLER, answer_of
from mos_fairseq.tasks.language_modeling_mos import LanguageModelingMosConfig, LanguageModelingMosTask
from mos_fairseq.tasks.masked_lm_mos import MaskedLmMosConfig, MaskedLmMosTask
from mos_fairseq.tasks.sentence_prediction_mos import (
    CLASSES,
    SentencePredictionMosConfig,
    SentencePredictionMosTask,
    labels_of,
)
from mos_fairseq.tasks.supernet_task import SupernetTask
from mos_fairseq.tasks.translation_config import TranslationMosConfig
from mos_fairseq.tasks.translation_mos import TranslationMosTask

__all__ = [
    "CLASSES",
    "CONTROLLER",
    "LanguageModelingMosConfig",
    "LanguageModelingMosTask",
    "MaskedLmMosConfig",
    "MaskedLmMosTask",
    "SentencePredictionMosConfig",
    "SentencePredictionMosTask",
    "SupernetTask",
    "TranslationMosConfig",
    "TranslationMosTask",
    "answer_of",
    "labels_of",
]
