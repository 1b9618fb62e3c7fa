"""Sentences on which a masked language model's gradients tell what matters in it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from fairseq.data import Dictionary

from mos_fairseq.checkpoints import save_checkpoint
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.data import first_folder
from mos_fairseq.evaluation.evaluator import EvaluationOptions, ModelEvaluator
from mos_fairseq.models import RobertaMosConfig
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.tasks import MaskedLmMosTask
from mos_fairseq.tasks.monolingual_data import DICTIONARY, check_monolingual
from mos_fairseq.warm_start.importance import Orders
from mos_fairseq.warm_start.roberta import MaskedModel, masked_supernet
from mos_fairseq.warm_start.supernet import supernet_checkpoint


def masked_batches(
    source: MaskedModel, space: SearchSpace, data: str, options: EvaluationOptions
) -> list[dict[str, Any]]:
    """Mini-batches of a folder that ``fairseq-preprocess --only-source`` made, a line a sample, words masked by
    fairseq's default rates.

    Raises:
        InputError: the model has no trained head, the set is missing, or its dictionary is not the model's.
    """
    if not source.has_head:
        raise InputError(f"data is {data}: the model has no head for masked words, of which gradients could come")
    _check_dictionary(source, data)
    cfg = RobertaMosConfig(search_space=space.dumps(), mos_routing="none")
    with tempfile.TemporaryDirectory() as folder:  # of the model as a checkpoint that the evaluator reads
        path = os.path.join(folder, "model.pt")
        save_checkpoint(supernet_checkpoint(source.state, masked_supernet(source, cfg, Orders())), path)
        lines = {"sample_break_mode": "eos", "shorten_method": "truncate", "seed": options.seed}
        return ModelEvaluator(path, data, options, examples=lines).batches


def _check_dictionary(source: MaskedModel, data: str) -> None:
    check_monolingual(data)
    found = Dictionary.load(os.path.join(first_folder(data), DICTIONARY))
    for symbol in MaskedLmMosTask.added_symbols:
        found.add_symbol(symbol)
    words = source.model.encoder.dictionary
    if len(found) != len(words):
        raise InputError(f"data is {data}: its dictionary has {len(found)} words, that of the model {len(words)}")
    if source.words is not None and found.symbols[: len(source.words)] != list(source.words):
        raise InputError(f"data is {data}: its dictionary is not the model's (fairseq-preprocess --srcdict)")
