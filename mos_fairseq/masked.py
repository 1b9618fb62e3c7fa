"""Mini-batches of masked language models, which predict words only at masked positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def predicts_masked(model: Any) -> bool:
    """Return whether ``model``, from fairseq or this package, is a masked language model."""
    return "self" in (getattr(model, "supported_targets", None) or ())


def masked_only(sample: dict[str, Any], padding_idx: int) -> dict[str, Any]:
    """Return ``sample`` for a model that projects only its N masked tokens to the vocabulary: logits [N, V].

    ``target`` becomes [N] and ``ntokens`` N, as in fairseq's criterion ``masked_lm``.
    """
    masked = sample["target"].ne(padding_idx)
    net_input = sample["net_input"] | {"masked_tokens": masked}
    return sample | {"net_input": net_input, "target": sample["target"][masked], "ntokens": masked.sum()}


EXAMPLES = (
    "seed",
    "sample_break_mode",
    "tokens_per_sample",
    "mask_prob",
    "leave_unmasked_prob",
    "random_token_prob",
    "freq_weighted_replacement",
    "mask_multiple_length",
    "mask_stdev",
    "shorten_method",
    "shorten_data_split_list",
)
"""Options of fairseq's ``masked_lm`` that decide what a sample is and which of its words are masked."""


def examples_of(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return these options of a supernet's configuration, so that other models are judged on the same samples and
    masks; empty for other tasks."""
    task = cfg["task"]
    return {name: task[name] for name in EXAMPLES if name in task} if "mask_prob" in task else {}


def predicted_tokens(model: Any, sample: dict[str, Any], padding_idx: int) -> int:
    """Return the number of words that ``model`` predicts in a mini-batch."""
    return int(sample["target"].ne(padding_idx).sum()) if predicts_masked(model) else sample["ntokens"]


def sentences_of(sample: dict[str, Any]) -> int:
    """Return the number of sentences in a mini-batch, whose ``target`` may have the masked words only."""
    return int(sample["net_input"]["src_tokens"].size(0))


def predicted_only(model: Any, sample: dict[str, Any], padding_idx: int) -> dict[str, Any]:
    """Return ``sample`` in the form that ``model`` predicts: masked words only, if it is a masked language model. A
    sample that has this form already, or asks for classes, is returned as it is."""
    done = {"masked_tokens", "classification_head_name"} & sample["net_input"].keys()
    return sample if done or not predicts_masked(model) else masked_only(sample, padding_idx)


def summed_loss(model: Any, sample: dict[str, Any], padding_idx: int) -> Tensor:
    """Return the cross-entropy of a mini-batch, in nats, summed over the predicted words."""
    sample = predicted_only(model, sample, padding_idx)
    logits, target = model(**sample["net_input"])[0], sample["target"]
    return torch.nn.functional.cross_entropy(
        logits.float().view(-1, logits.size(-1)), target.reshape(-1), ignore_index=padding_idx, reduction="sum"
    )
