"""Score models, each once: every score is kept in a file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import EvaluationOptions, ModelEvaluator
from mos_fairseq.evaluation.scoring import TEXT_METRICS
from mos_fairseq.files import make_folder, read_text, text_lines, write_atomically
from mos_fairseq.search_space import Family


@dataclass(frozen=True)
class Judge:
    """Settings for scoring models.

    Args:
        data: the folder made by fairseq-preprocess.
        options: the part of the set, and the score (objective): of translations, or the loss alone.
        device: torch's name of the device.
        reference: raw target text of the set, one line a sentence; None: the binarised text, with subwords joined.

    Raises:
        InputError: the reference does not exist, or is combined with a part of the set or with the loss.
    """

    data: str
    options: EvaluationOptions
    device: str = "cpu"
    reference: Path | None = None

    def __post_init__(self) -> None:
        if self.reference is not None and not self.translates:
            raise InputError(f"reference is {self.reference}: it has no effect with metric {self.quality}")
        if self.reference is not None and self.options.valid_samples is not None:
            raise InputError("reference covers the whole set: it does not go with valid_samples")
        self.reference_lines()

    @property
    def quality(self) -> str:
        """The name of the main score."""
        return self.options.objective

    @property
    def translates(self) -> bool:
        """Whether the main score needs translations."""
        return self.quality in TEXT_METRICS

    @property
    def metrics(self) -> tuple[str, str]:
        """The names of all scores; ``ppl`` is the perplexity, 2 to the power of the loss."""
        return (self.quality, "loss") if self.translates else ("loss", "ppl")

    def reaches(self, score: float, goal: float) -> bool:
        """Return whether ``score`` is as good as ``goal``; a lower loss is better."""
        return score >= goal if self.translates else score <= goal

    def check_family(self, family: Family) -> None:
        """Raise InputError if models of ``family`` cannot be scored so."""
        if self.quality not in family.objectives:
            known = ", ".join(family.objectives)
            raise InputError(f"metric is {self.quality}: models of family {family.name} are judged by {known}")

    def reference_lines(self) -> list[str] | None:
        """Return the lines of the raw reference, or None."""
        if self.reference is None:
            return None
        return text_lines(read_text(self.reference, "reference"))

    def references(self, evaluator: ModelEvaluator) -> list[str]:
        """Return the raw reference, or without one the evaluator's.

        Raises:
            InputError: it has another number of lines than the evaluator's set has sentences.
        """
        given, own = self.reference_lines(), evaluator.references()
        if given is not None and len(given) != len(own):
            raise InputError(f"reference {self.reference}: {len(given)} lines for {len(own)} sentences")
        return own if given is None else given

    @staticmethod
    def hypotheses(path: str, count: int) -> list[str]:
        """Return the translations that :meth:`scores` left in a file, ``count`` lines.

        Raises:
            InputError: the file does not exist, or has another length.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
        except (OSError, UnicodeDecodeError):
            lines = []
        if len(lines) != count:
            scores = Path(path).with_suffix(".json")
            raise InputError(f"{path}: it holds {len(lines)} translations of {count}; remove {scores} to judge anew")
        return lines

    def digest(self, *parts: str) -> str:
        """Return a file name for scores that depend on the reference and ``parts`` (fingerprints, keys)."""
        text = json.dumps([*parts, self.reference_lines()])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def scores(self, path: Path, prepare: Callable[[], ModelEvaluator]) -> dict[str, Any]:
        """Return the scores of a model.

        They are ``loss`` (bits per token) and ``ppl``; or ``bleu`` or ``chrf``, ``loss``, sacreBLEU's ``signature``,
        and ``hypotheses``, the file of the translations.

        Args:
            path: file of the scores, read if it exists; translations go beside it, with the ending ``.txt``.
            prepare: called to load the model if it has no scores yet.

        Raises:
            InputError: a score is not finite, or the reference has another length.
        """
        kept = {"hypotheses": str(path.with_suffix(".txt"))} if self.translates else {}
        if path.exists():
            try:
                known = json.loads(path.read_text(encoding="utf-8"))
                return known | {name: float(known[name]) for name in self.metrics} | kept
            except (OSError, ValueError, KeyError, TypeError):
                raise InputError(f"{path}: cannot be read; remove it to judge anew") from None
        evaluator = prepare()
        scores: dict[str, Any] = {}
        hypotheses: list[str] = []
        if self.translates:
            references = self.references(evaluator)  # a mistake shows before translating
            hypotheses = evaluator.translate()[0]
            scores = {self.quality: evaluator.score(hypotheses, references), "signature": evaluator.signature}
        loss = evaluator.loss()
        if not all(math.isfinite(score) for score in (loss, scores.get(self.quality, 0.0))):
            raise InputError(f"{evaluator.path}: its loss is {loss}")
        scores |= {"loss": loss} if self.translates else {"loss": loss, "ppl": 2**loss}
        make_folder(path.parent)
        if self.translates:
            write_atomically(path.with_suffix(".txt"), "".join(text + "\n" for text in hypotheses))
        write_atomically(path, json.dumps(scores, indent=1))
        return scores | kept
