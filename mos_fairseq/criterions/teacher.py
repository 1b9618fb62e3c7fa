"""A trained, fixed model that teaches all subnets."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from torch import Tensor

from mos_fairseq.errors import InputError
from mos_fairseq.predictions import Prediction, class_names

logger = logging.getLogger(__name__)


class FrozenTeacher:
    """The model of a checkpoint, fairseq's own or one of this package's (for a supernet, the largest subnet, or the one
    that it was trained for by ``--subnet-sampling fixed``).

    It is not a module, so neither the optimizer nor the training's checkpoints include its parameters.

    Args:
        path: the checkpoint.
        task: the training's task, whose dictionaries must equal the teacher's.

    Raises:
        InputError: the checkpoint cannot be read, its dictionaries or classes differ, it takes fewer positions than the
            training has, or its outputs are no logits.
    """

    def __init__(self, path: str, task: Any) -> None:
        if not os.path.isfile(path):
            raise InputError(f"teacher is {path}: no such file")
        self.path = path
        model, its_task = _load(path, task)
        self._check(model, its_task, task)
        self._model = model.eval().requires_grad_(False)
        self._sample: Any = None
        self._logits: Tensor | None = None

    def _check(self, model: Any, its_task: Any, task: Any) -> None:
        for side in ("source", "target"):
            mine, theirs = (getattr(t, f"{side}_dictionary") for t in (task, its_task))
            if mine != theirs:
                raise InputError(
                    f"teacher is {self.path}: its {side} dictionary, of {len(theirs)} symbols, is not the "
                    f"training's, of {len(mine)}"
                )
        if (head := Prediction.of(task).head) is not None:
            self._check_classes(model, its_task, task, head)
        needed = task.max_positions() or task.cfg.tokens_per_sample  # for translation; for language models
        most, needed = (np.asarray(positions).tolist() for positions in (model.max_positions(), needed))
        if np.less(most, needed).any():
            raise InputError(f"teacher is {self.path}: it takes {most} positions, the training has {needed}")
        if any(getattr(part, "adaptive_softmax", None) for part in (model, getattr(model, "decoder", None))):
            raise InputError(f"teacher is {self.path}: its adaptive softmax gives no logits")

    def _check_classes(self, model: Any, its_task: Any, task: Any, head: str) -> None:
        if not hasattr(its_task, "label_dictionary"):
            raise InputError(f"teacher is {self.path}: it is no classifier, its task is {its_task.cfg._name}")
        if class_names(its_task.label_dictionary) != class_names(task.label_dictionary):
            raise InputError(f"teacher is {self.path}: its labels (label/dict.txt) are not the training's")
        if head not in model.classification_heads:
            known = ", ".join(model.classification_heads)
            raise InputError(f"teacher is {self.path}: it has no classification head {head}, only {known}")
        classes = model.classification_heads[head].out_proj.bias.numel()
        if classes != task.cfg.num_classes:
            raise InputError(
                f"teacher is {self.path}: it knows {classes} classes, num_classes is {task.cfg.num_classes}"
            )

    def logits(self, sample: dict[str, Any], like: Tensor) -> Tensor:
        """Return the teacher's logits [B, T, V], or of classes [B, C], computed once per mini-batch for all students.

        Args:
            like: a student's logits; the result gets their device and type.
        """
        if sample is not self._sample or self._logits is None:
            self._model.to(device=like.device)
            with torch.no_grad():
                self._logits = self._model(**sample["net_input"])[0].to(like.dtype)
            self._sample = sample
        return self._logits

    def forget(self) -> None:
        """Free the logits of the last mini-batch."""
        self._sample = self._logits = None


def _load(path: str, task: Any) -> tuple[Any, Any]:
    """Return (model, task) of a checkpoint. The dictionaries come from the data that it was trained on. If these are
    gone, the training's dictionaries are used, with a warning."""
    try:
        state = checkpoint_utils.load_checkpoint_to_cpu(path)
        folder = (state["cfg"].task if state.get("cfg") is not None else state["args"]).data
    except (KeyError, TypeError, AttributeError, RuntimeError, IndexError):  # from fairseq's upgrade of old formats
        raise InputError(f"teacher is {path}: not a fairseq checkpoint") from None
    overrides = {}
    if not os.path.isdir(utils.split_paths(folder)[0]):
        logger.warning("teacher is %s: its data %s are gone; the training's dictionaries are used", path, folder)
        overrides = {"data": task.cfg.data}
    models, _, found = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides=overrides)
    return models[0], found
