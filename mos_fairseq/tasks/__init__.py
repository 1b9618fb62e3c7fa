"""Tasks registered with fairseq."""

from mos_fairseq.tasks.translation_config import TranslationMosConfig
from mos_fairseq.tasks.translation_mos import TranslationMosTask

__all__ = ["TranslationMosConfig", "TranslationMosTask"]
