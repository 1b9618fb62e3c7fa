"""A table of all export formats. Importing it needs no torch: a format's writer imports what it needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mos_fairseq.errors import InputError
from mos_fairseq.export.stock_sizes import (
    STOCK_ARCHITECTURES,
    check_hugging_face,
    check_hugging_face_translation,
    check_last_output_only,
    stock_sizes,
)
from mos_fairseq.search_space import FAMILIES, Family, Subnet, check_family

if TYPE_CHECKING:
    from mos_fairseq.models import StaticTwin, TransformerSubnetModel

# CTranslate2's types of weights
QUANTIZATIONS = ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32")


@dataclass(frozen=True)
class ExportOptions:
    """Options that only some formats have.

    Args:
        allow_padding: smaller layers may be padded with zeros.
        quantization: type of the weights, one of :data:`QUANTIZATIONS`; None keeps them as they are.
        data: folder of the dictionaries; None: the supernet's training data.
        tokenizer: file of the tokenizer that split the text into words; None: words are separated by spaces.
    """

    allow_padding: bool = False
    quantization: str | None = None
    data: str | None = None
    tokenizer: str | None = None


Checkpoint = dict[str, Any]
Output = str | os.PathLike[str]


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        name: on the command line.
        families: families of the subnets that it can hold.
        says: description for the help.
        options: names of the fields of :class:`ExportOptions` that it has.
        check: raises InputError if it cannot hold a subnet of these families, judged by sizes.
        write: called with (the supernet's checkpoint, the subnet's static twin, a path, options). Raises InputError if
            the format cannot hold the twin, or the path cannot be written.
        older_name: also accepted.
    """

    name: str
    families: tuple[str, ...]
    says: str
    options: tuple[str, ...]
    check: Callable[[Subnet, ExportOptions], object]
    write: Callable[[Checkpoint, Any, Output, ExportOptions], None]  # the twin is of one of the families
    older_name: str | None = None

    def check_options(self, options: ExportOptions) -> None:
        """Raise InputError if an option of another format is set."""
        for name, value in asdict(options).items():
            if value and name not in self.options:
                owners = ", ".join(other.name for other in FORMATS if name in other.options)
                raise InputError(f"{name} is given with format {self.name}: it belongs to {owners}")

    def check_family(self, family: Family) -> None:
        """Raise InputError if the format cannot hold subnets of ``family``."""
        check_family(f"mos-export --format {self.name}", self.families, "the checkpoint", family)


def find_format(name: str) -> Format:
    """Return the format with that name or older name. Raises KeyError if there is none."""
    for known in FORMATS:
        if name in (known.name, known.older_name):
            return known
    raise KeyError(name)


def _write_twin(state: Checkpoint, twin: StaticTwin, output: Output, options: ExportOptions) -> None:
    from mos_fairseq.checkpoints import save_checkpoint, twin_checkpoint

    save_checkpoint(twin_checkpoint(state, twin), output)


def _write_stock(state: Checkpoint, twin: StaticTwin, output: Output, options: ExportOptions) -> None:
    from mos_fairseq.checkpoints import save_checkpoint
    from mos_fairseq.export.stock import stock_checkpoint

    save_checkpoint(stock_checkpoint(state, twin, options.allow_padding), output)


def _write_ctranslate2(state: Checkpoint, twin: TransformerSubnetModel, output: Output, options: ExportOptions) -> None:
    from mos_fairseq.checkpoints import read_vocabularies
    from mos_fairseq.export.ctranslate2 import save_ctranslate2

    save_ctranslate2(twin, read_vocabularies(state, options.data), output, options.quantization)


_HUGGING_FACE = {"encoder_decoder": check_hugging_face_translation, "encoder_only": check_hugging_face}
"""The check whether transformers can express a subnet, by family."""


def _check_huggingface(subnet: Subnet, options: ExportOptions) -> None:
    _HUGGING_FACE[subnet.family.name](subnet, options.allow_padding)


def _write_huggingface(state: Checkpoint, twin: StaticTwin, output: Output, options: ExportOptions) -> None:
    from mos_fairseq.checkpoints import read_labels, read_vocabularies, read_words
    from mos_fairseq.export.huggingface import save_huggingface
    from mos_fairseq.export.huggingface_translation import save_huggingface_translation

    more: dict[str, Any] = {"allow_padding": options.allow_padding, "tokenizer": options.tokenizer}
    if twin.family.name == "encoder_decoder":
        save_huggingface_translation(twin, read_vocabularies(state, options.data), output, **more)
    else:
        labels = read_labels(state, options.data)
        save_huggingface(twin, read_words(state, options.data), output, labels=labels, **more)


FORMATS = (
    Format(
        "twin",
        tuple(FAMILIES),
        "any subnet, for fairseq with this plugin and fairseq's own task",
        (),
        lambda subnet, options: None,
        _write_twin,
        older_name="transformer_subnet",
    ),
    Format(
        "fairseq",
        tuple(STOCK_ARCHITECTURES),
        f"fairseq's own {', '.join(STOCK_ARCHITECTURES.values())}, without plugin, for subnets that it can express",
        ("allow_padding",),
        lambda subnet, options: stock_sizes(subnet, options.allow_padding),
        _write_stock,
    ),
    Format(
        "ctranslate2",
        ("encoder_decoder",),
        "a model of that inference engine, for translation and subnets that it can express; it translates an empty "
        "line as an empty one, and cuts a hypothesis at the length limit, where fairseq ends it",
        ("quantization", "data"),
        lambda subnet, options: check_last_output_only(subnet, "CTranslate2"),
        _write_ctranslate2,
    ),
    Format(
        "huggingface",
        tuple(_HUGGING_FACE),
        "a folder for transformers and subnets that it can express: for AutoModelForSeq2SeqLM, FSMT, or with other "
        "norms BART, mBART or Pegasus; for AutoModelForMaskedLM and AutoModelForSequenceClassification, RoBERTa, or "
        "Electra if all layers have the same width, different from the embeddings'",
        ("allow_padding", "data", "tokenizer"),
        _check_huggingface,
        _write_huggingface,
    ),
)
