"""Tasks registered with fairseq: one for each family."""

from mos_fairseq.tasks.controller import CONTROLLER, answer_of
from mos_fairseq.tasks.language_modeling_mos import LanguageModelingMosConfig, LanguageModelingMosTask
from mos_fairseq.tasks.masked_lm_mos import MaskedLmMosConfig, MaskedLmMosTask
from mos_fairseq.tasks.supernet_task import SupernetTask
from mos_fairseq.tasks.translation_config import TranslationMosConfig
from mos_fairseq.tasks.translation_mos import TranslationMosTask

__all__ = [
    "CONTROLLER",
    "LanguageModelingMosConfig",
    "LanguageModelingMosTask",
    "MaskedLmMosConfig",
    "MaskedLmMosTask",
    "SupernetTask",
    "TranslationMosConfig",
    "TranslationMosTask",
    "answer_of",
]
