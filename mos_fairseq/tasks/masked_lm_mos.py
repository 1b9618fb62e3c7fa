"""``masked_lm_mos``: fairseq's masked language modelling task for supernets."""

import functools
from dataclasses import dataclass, field
from typing import Any

from fairseq.data import BaseWrapperDataset, LRUCacheDataset
from fairseq.tasks import register_task
from fairseq.tasks.masked_lm import MaskedLMConfig, MaskedLMTask

from mos_fairseq.errors import InputError
from mos_fairseq.tasks.monolingual_data import DICTIONARY, check_monolingual
from mos_fairseq.tasks.options import OptionTable, supernet_options
from mos_fairseq.tasks.supernet_config import SupernetTaskConfig
from mos_fairseq.tasks.supernet_task import SupernetTask


@dataclass
class MaskedLmMosConfig(SupernetTaskConfig, MaskedLMConfig):
    """Options of fairseq's masked language modelling and of the supernet."""

    # fairseq's default is True: persistent data-loading processes would use the first epoch's masks in all epochs
    reuse_dataloader: bool = field(
        default=False, metadata={"help": "keep the processes that load data from epoch to epoch"}
    )


class MasksOfEpoch(BaseWrapperDataset):
    """A masked set of fairseq's that depends on the epoch only.

    fairseq's own set caches recent examples with their masks across epochs. Its output then depends on which examples
    were read before a new epoch began, so a resumed run would see other masks.
    """

    def set_epoch(self, epoch: int) -> None:
        """Use the masks of ``epoch`` from now on."""
        super().set_epoch(epoch)
        LRUCacheDataset.__getitem__.cache_clear()


def other_masks_each_epoch(task: type[MaskedLMTask]) -> None:
    """Make fairseq's own ``task`` mask other words in each epoch, as this package's task does. With data-loading
    processes it would otherwise mask the same words in all epochs."""
    load_dataset, get_batch_iterator = task.load_dataset, task.get_batch_iterator

    @functools.wraps(load_dataset)
    def load(self: MaskedLMTask, split: str, *args: Any, **kwargs: Any) -> None:
        load_dataset(self, split, *args, **kwargs)
        self.datasets[split] = MasksOfEpoch(self.datasets[split])

    @functools.wraps(get_batch_iterator)
    def iterate(self: MaskedLMTask, *args: Any, **kwargs: Any) -> Any:
        iterator = get_batch_iterator(self, *args, **kwargs)
        iterator.reuse_dataloader = False
        return iterator

    task.load_dataset, task.get_batch_iterator = load, iterate


def _check_masks(cfg: MaskedLmMosConfig) -> None:
    """Raise InputError for shares of words with which fairseq's masks fail."""
    if not 0 < cfg.mask_prob < 1:
        raise InputError(f"mask_prob is {cfg.mask_prob}: allowed are numbers above 0, below 1")
    for name in ("leave_unmasked_prob", "random_token_prob"):
        if not 0 <= getattr(cfg, name) <= 1:
            raise InputError(f"{name} is {getattr(cfg, name)}: allowed are numbers from 0 to 1")
    if cfg.leave_unmasked_prob + cfg.random_token_prob > 1:
        raise InputError(
            f"leave_unmasked_prob is {cfg.leave_unmasked_prob} and random_token_prob is {cfg.random_token_prob}: "
            "allowed is a sum of 1 at most"
        )
    if cfg.mask_multiple_length < 1:
        raise InputError(f"mask_multiple_length is {cfg.mask_multiple_length}: allowed are whole numbers from 1 up")
    if cfg.mask_stdev < 0:
        raise InputError(f"mask_stdev is {cfg.mask_stdev}: allowed are numbers from 0 up")


_COMMANDS = ("train", "validate")
_ACTS, _NEEDS = supernet_options(_COMMANDS)


@register_task("masked_lm_mos", dataclass=MaskedLmMosConfig)
class MaskedLmMosTask(SupernetTask, MaskedLMTask):
    """Masked language modelling with a weight-sharing supernet (``--arch roberta_mos``).

    Masks depend on the seed, the epoch and the position in the set; in validation on the seed and the position only. So
    all subnets of an update, and all subnets judged on a set, predict the same words.
    """

    name, stock, arch = "masked_lm_mos", "masked_lm", "roberta_mos"
    stock_criterion = "masked_lm"
    criterions = ("masked_lm", "label_smoothed_cross_entropy_mos", "distillation_mos")  # they count masked words only
    examples = "text"
    added_symbols = ("<mask>",)
    option_table = OptionTable(
        acts={
            "data": _COMMANDS,
            "sample_break_mode": _COMMANDS,
            "tokens_per_sample": _COMMANDS,
            "mask_prob": _COMMANDS,
            "leave_unmasked_prob": _COMMANDS,
            "random_token_prob": _COMMANDS,
            "freq_weighted_replacement": _COMMANDS,
            "mask_whole_words": (),  # fairseq's own task fails with it
            "mask_multiple_length": _COMMANDS,
            "mask_stdev": _COMMANDS,
            "shorten_method": _COMMANDS,
            "shorten_data_split_list": _COMMANDS,
            "include_target_tokens": (),  # these four belong to data2vec
            "include_index": (),
            "skip_masking": (),
            "d2v2_multi": (),
            "reuse_dataloader": (),
        }
        | _ACTS,
        needs=_NEEDS,
    )

    def __init__(self, cfg: MaskedLmMosConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(cfg, *args, **kwargs)
        _check_masks(cfg)

    def nothing_to_predict(self, criterion: Any) -> str:
        """Return the end of a message: which option masks nothing."""
        return f" with mask_prob {self.cfg.mask_prob}"

    def load_dataset(self, split: str, *args: Any, **kwargs: Any) -> None:
        """As :meth:`SupernetTask.load_dataset`."""
        super().load_dataset(split, *args, **kwargs)
        self.datasets[split] = MasksOfEpoch(self.datasets[split])

    @classmethod
    def dictionary_names(cls, cfg: MaskedLmMosConfig, folder: str) -> tuple[str]:
        """Return fairseq's name of the only dictionary."""
        return (DICTIONARY,)

    @classmethod
    def check_data(cls, cfg: MaskedLmMosConfig) -> None:
        """Raise InputError if the first data folder, or its dictionary, is missing."""
        check_monolingual(cfg.data)
