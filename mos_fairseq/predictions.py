"""What the models of a task predict: words, masked words, or the class of each example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fairseq.data import Dictionary
from torch import Tensor

from mos_fairseq.masked import predicted_only, predicted_tokens, summed_loss

_NO_CLASS = -100  # no class has this number
_PADDING = "madeupword"  # words that fairseq-preprocess adds to a dictionary


def class_names(labels: Dictionary) -> list[str]:
    """Return the names of the classes in fairseq's dictionary of labels, in order."""
    words = labels.symbols[labels.nspecial :]
    return [word for word in words if word != "<mask>" and not word.startswith(_PADDING)]


@dataclass(frozen=True)
class Prediction:
    """
    Args:
        padding_idx: the target that stands for none.
        head: the classification head that predicts classes; None: words are predicted.
    """

    padding_idx: int
    head: str | None = None

    @classmethod
    def of(cls, task: Any) -> Prediction:
        """Return what models of fairseq's ``task`` predict."""
        if hasattr(task, "label_dictionary"):
            return cls(_NO_CLASS, task.cfg.classification_head_name)
        words = task.target_dictionary
        return cls(_NO_CLASS if words is None else words.pad())

    @property
    def objectives(self) -> tuple[str, ...]:
        """Scores that only such predictions have."""
        return () if self.head is None else ("accuracy",)

    def form(self, model: Any, sample: dict[str, Any]) -> dict[str, Any]:
        """Return a mini-batch in the form that ``model`` predicts.

        A masked language model gets :func:`~mos_fairseq.masked.masked_only`. Of classes, ``target`` becomes [B] and
        ``ntokens`` B. A sample in this form is returned as it is.
        """
        if self.head is None:
            return predicted_only(model, sample, self.padding_idx)
        if "classification_head_name" in sample["net_input"]:
            return sample
        net_input = sample["net_input"] | {"features_only": True, "classification_head_name": self.head}
        target = sample["target"].view(-1)
        return sample | {"net_input": net_input, "target": target, "ntokens": len(target)}

    def count(self, model: Any, sample: dict[str, Any]) -> int:
        """Return the number of words or classes that ``model`` predicts in a mini-batch."""
        return len(sample["target"]) if self.head is not None else predicted_tokens(model, sample, self.padding_idx)

    def summed_loss(self, model: Any, sample: dict[str, Any]) -> Tensor:
        """Return the cross-entropy of a mini-batch, in nats, summed over what is predicted."""
        return summed_loss(model, self.form(model, sample), self.padding_idx)

    def num_correct(self, model: Any, sample: dict[str, Any]) -> Tensor:
        """Return the number of examples of a mini-batch whose class ``model`` predicts."""
        sample = self.form(model, sample)
        return model(**sample["net_input"])[0].argmax(-1).eq(sample["target"]).sum()
