"""``translation_mos``: fairseq's translation task for supernets."""

from fairseq.data import ConcatDataset
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.models.switches import without_attention
from mos_fairseq.tasks.bleu_options import check_bleu_options
from mos_fairseq.tasks.supernet_task import SupernetTask
from mos_fairseq.tasks.translation_config import (
    OPTION_TABLE,
    TranslationMosConfig,
    check_data,
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
        check_bleu_options(cfg)
        if cfg.upsample_primary != TranslationConfig.upsample_primary:  # in older checkpoints
            at_least(1, upsample_primary=cfg.upsample_primary)

    @classmethod
    def dictionary_names(cls, cfg: TranslationMosConfig, folder: str) -> tuple[str, str]:
        """Return the source and the target dictionary's name. Raises InputError if the languages are unknown."""
        return dictionary_names(cfg, folder)

    @classmethod
    def check_data(cls, cfg: TranslationMosConfig) -> None:
        """Raise InputError if the first data folder lacks a dictionary, or the languages are unknown."""
        check_data(cfg)

    def load_dataset(self, split, epoch=1, combine=False, **kwargs) -> None:
        """As :meth:`SupernetTask.load_dataset`. Raises InputError for an option without effect on the training set."""
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        trains = self.command is not None and self.command.name == "train"
        if trains and split == self.cfg.train_subset and epoch == 1 and not self._shards:
            self._check_parts(split)

    def _check_parts(self, split: str) -> None:
        """Raise InputError for an option without effect on a set: it has one part, or no alignments."""
        found, cfg = self.datasets[split], self.cfg
        if cfg.upsample_primary > 1 and not isinstance(found.src, ConcatDataset):
            raise InputError(
                f"upsample_primary is {cfg.upsample_primary}: it has no effect, {cfg.data} has {split} and no {split}1"
            )
        if cfg.load_alignments and found.align_dataset is None:
            name = f"{split}.align.{cfg.source_lang}-{cfg.target_lang}"
            raise InputError(f"load_alignments is True: it has no effect, {cfg.data} has no {name}")

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
