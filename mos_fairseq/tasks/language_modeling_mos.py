"""``language_modeling_mos``: fairseq's language modelling task for supernets."""

from dataclasses import dataclass

from fairseq.tasks import register_task
from fairseq.tasks.language_modeling import LanguageModelingConfig, LanguageModelingTask

from mos_fairseq.tasks.monolingual_data import DICTIONARY, check_monolingual
from mos_fairseq.tasks.options import OptionTable, supernet_options
from mos_fairseq.tasks.supernet_config import SupernetTaskConfig
from mos_fairseq.tasks.supernet_task import SupernetTask


@dataclass
class LanguageModelingMosConfig(SupernetTaskConfig, LanguageModelingConfig):
    """Options of fairseq's language modelling and of the supernet."""


_COMMANDS = ("train", "generate", "interactive", "validate", "eval_lm")
_READS_BLOCKS = ("train", "generate", "validate", "eval_lm")
_ACTS, _NEEDS = supernet_options(_COMMANDS)


@register_task("language_modeling_mos", dataclass=LanguageModelingMosConfig)
class LanguageModelingMosTask(SupernetTask, LanguageModelingTask):
    """Language modelling with a weight-sharing supernet (``--arch transformer_lm_mos``)."""

    name, stock, arch = "language_modeling_mos", "language_modeling", "transformer_lm_mos"
    examples = "text"
    option_table = OptionTable(
        acts={
            "data": _COMMANDS,
            "sample_break_mode": _READS_BLOCKS,
            "tokens_per_sample": _READS_BLOCKS,
            "output_dictionary_size": (),
            "self_target": (),
            "future_target": _COMMANDS,  # predicted anyway
            "past_target": (),
            "add_bos_token": _COMMANDS,
            "max_target_positions": ("train",),
            "shorten_method": _READS_BLOCKS,
            "shorten_data_split_list": _READS_BLOCKS,
            "pad_to_fixed_length": _READS_BLOCKS,
            "pad_to_fixed_bsz": _READS_BLOCKS,
        }
        | _ACTS,
        needs=_NEEDS,
    )

    @classmethod
    def dictionary_names(cls, cfg: LanguageModelingMosConfig, folder: str) -> tuple[str]:
        """Return fairseq's name of the only dictionary."""
        return (DICTIONARY,)

    @classmethod
    def check_data(cls, cfg: LanguageModelingMosConfig) -> None:
        """Raise InputError if the first data folder, or its dictionary, is missing."""
        check_monolingual(cfg.data)
