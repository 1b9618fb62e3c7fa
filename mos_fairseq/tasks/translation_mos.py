"""``translation_mos``: fairseq's translation task for supernets."""

from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationTask

from mos_fairseq.errors import InputError
from mos_fairseq.models.switches import without_attention
from mos_fairseq.tasks.supernet_task import SupernetTask
from mos_fairseq.tasks.translation_config import (
    OPTION_TABLE,
    TranslationMosConfig,
    check_data,
    check_json,
    dictionary_names,
)


@register_task("translation_mos", dataclass=TranslationMosConfig)
class TranslationMosTask(SupernetTask, TranslationTask):
    """Translation with a weight-sharing supernet (``--arch transformer_mos``)."""

    name, stock, arch = "translation_mos", "translation", "transformer_mos"
    examples = "pairs of these languages"
    option_table = OPTION_TABLE
    metrics_need = "bleu needs --eval-bleu, accuracy --report-accuracy"

    cfg: TranslationMosConfig

    def __init__(self, cfg: TranslationMosConfig, src_dict, tgt_dict) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        for name in ("eval_bleu_args", "eval_bleu_detok_args"):
            check_json(name, getattr(cfg, name))

    @classmethod
    def dictionary_names(cls, cfg: TranslationMosConfig, folder: str) -> tuple[str, str]:
        """Return the source and the target dictionary's name. Raises InputError if the languages are unknown."""
        return dictionary_names(cfg, folder)

    @classmethod
    def check_data(cls, cfg: TranslationMosConfig) -> None:
        """Raise InputError if the first data folder lacks a dictionary, or the languages are unknown."""
        check_data(cfg)

    def check_targets(self, split: str) -> None:
        """Raise InputError if a loaded split lacks the target language, which fairseq allows for generation."""
        if self.datasets[split].tgt is None:
            source, target = self.cfg.source_lang, self.cfg.target_lang
            raise InputError(
                f"data is {self.cfg.data}: it has no translations of {split}, {split}.{source}-{target}.{target}"
            )

    def _measured_metrics(self, dataset, model, criterion) -> set[str]:
        """Measure as every supernet task does, without --eval-bleu's search."""
        names = super()._measured_metrics(dataset, model, criterion)
        return names | ({"bleu", *(f"bleu_{name}" for name in self.valid_subnets)} if self.cfg.eval_bleu else set())

    def _inference_with_bleu(self, generator, sample, model):
        with without_attention(model):
            return super()._inference_with_bleu(generator, sample, model)
