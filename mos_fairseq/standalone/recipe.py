"""The common settings of standalone trainings, and their data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mos_fairseq.checkpoints import build_supernet, read_supernet, save_checkpoint, twin_checkpoint
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.data import dataset_impl
from mos_fairseq.files import file_digest, make_folder
from mos_fairseq.search_space import Subnet
from mos_fairseq.standalone.configuration import LENGTH
from mos_fairseq.standalone.data import data_digest
from mos_fairseq.standalone.kinds import Kind
from mos_fairseq.standalone.options import Options, effective, overridden
from mos_fairseq.standalone.training import Training

# options of fairseq-train that users cannot set
RESERVED = (
    "--task",
    "--arch",
    "-a",
    "--subnet",
    *(f"--{field.replace('_', '-')}" for field in LENGTH),
    "--distributed-world-size",
    "--save-dir",
    "--no-save",
    "--no-last-checkpoints",
    "--checkpoint-suffix",
    "--finetune-from-model",
    "--restore-file",
)


def check_words(command: str, words: Sequence[str]) -> None:
    """Raise InputError if ``words`` for fairseq-train, after the -- of a ``command``, contain one of these options."""
    for text in words:
        if (option := text.partition("=")[0]) in RESERVED:
            raise InputError(f"{option} cannot be given after --: {command} sets it ({', '.join(RESERVED)})")


@dataclass(frozen=True)
class Recipe:
    """The common settings of trainings, without the architecture, the number of updates and the start.

    Args:
        kind: kind of the models.
        data: the folder made by fairseq-preprocess.
        options: options of ``fairseq-train``, as in the supernet's training (:func:`training_options`).
        more: words of fairseq-train that override them.
    """

    kind: Kind
    data: str
    options: Options
    more: Sequence[str] = ()

    @cached_property
    def _arguments(self) -> list[str]:
        return overridden(self.options, self.more)

    @cached_property
    def data_digest(self) -> str:
        """Digest of dictionaries and training set. Raises InputError if they cannot be read."""
        return data_digest(self.data, self._train_subset)

    @cached_property
    def _train_subset(self) -> str:
        return (effective(self._arguments).get("--train-subset") or ["train"])[0]

    def from_scratch(self, root: Path, subnet: Subnet, updates: int) -> Training:
        """Return the training of one architecture from fresh weights, in a folder of ``root``."""
        return Training(root, self._identity(subnet) | {"updates": updates}, self._command(subnet), updates)

    def finetuning(self, root: Path, subnet: Subnet, updates: int, supernet: str) -> Training:
        """Return the further training of one architecture, from weights inherited from the checkpoint ``supernet``.

        Trainings that differ only in ``updates`` are one run, which continues; its folder has the start, ``twin.pt``.
        """
        identity = self._identity(subnet) | {"start": file_digest(supernet)[:16]}
        training = Training(root, identity, self._command(subnet), updates)
        twin = training.folder / "twin.pt"
        if not twin.exists():
            state = read_supernet(supernet)
            model = build_supernet(state)
            model.set_active_subnet(subnet)
            make_folder(training.folder)
            save_checkpoint(twin_checkpoint(state, model.get_active_subnet()), twin)
        return Training(root, identity, training.arguments, updates, twin)

    def _identity(self, subnet: Subnet) -> dict[str, Any]:
        return {"subnet": subnet.to_dict(), "options": effective(self._arguments), "data": self.data_digest}

    def _command(self, subnet: Subnet) -> tuple[str, ...]:
        impl = dataset_impl(self.data, self._train_subset)
        stored = ("--dataset-impl", impl) if impl else ()
        return (self.data, *self.kind.command, "--subnet", subnet.key, *stored, *self._arguments)
