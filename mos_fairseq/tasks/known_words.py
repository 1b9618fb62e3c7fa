"""A checkpoint knows its words: data of another dictionary are refused, where fairseq compares sizes alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mos_fairseq.errors import InputError

if TYPE_CHECKING:  # the class that the mixin precedes
    from fairseq.tasks import FairseqTask as _Base
else:
    _Base = object

logger = logging.getLogger(__name__)

WORDS = "words"
"""Key of the task's state in a checkpoint: by side, number and fingerprint of the dictionary's words in their order."""
_SIDES = ("source", "target")


def fingerprint(words: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that depend on the words and their order."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


class KnownWords(_Base):
    """Mixin that keeps fingerprints of a task's dictionaries in checkpoints, and compares them where one is read: for
    evaluation, for a search, or to resume its training."""

    cfg: Any

    def _words(self) -> dict[str, list[Any]]:
        found = {side: getattr(self, f"{side}_dictionary") for side in _SIDES}
        return {side: [len(d), fingerprint(d.symbols)] for side, d in found.items() if d is not None}

    @property
    def goes_on_with_state(self) -> bool:
        """Return True: a resumed training compares its words."""
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the state of fairseq's task, and the fingerprints."""
        return super().state_dict() | {WORDS: self._words()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load as fairseq's task does. Raises InputError if the checkpoint has other words, or in another order. Older
        checkpoints do not tell."""
        rest = dict(state_dict)
        differs = self._difference(rest.pop(WORDS, {}))
        if differs:
            raise InputError(differs)
        super().load_state_dict(rest)

    def compare_with_start(self, state_dict: dict[str, Any]) -> None:
        """Warn if the checkpoint whose weights begin this training has other words, or in another order, than its data:
        embeddings belong to the words of their rows."""
        differs = self._difference(state_dict.get(WORDS, {}))
        if differs:
            logger.warning("%s; its embeddings are taken row by row", differs)

    def _difference(self, theirs: dict[str, list[Any]]) -> str | None:
        for side, (number, digits) in self._words().items():
            count, known = theirs.get(side, (number, digits))
            if (number, digits) != (count, known):
                how = "other words, or another order" if number == count else f"that has {count}"
                return (
                    f"data is {self.cfg.data}: its {side} dictionary of {number} words is not the checkpoint's: {how}"
                )
        return None
