"""Is one supernet's BLEU better than another's, or is it chance? sacreBLEU's paired bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest


def paired_bootstrap(
    systems: Mapping[str, Sequence[str]], references: Sequence[str], samples: int
) -> dict[str, dict[str, float]]:
    """Compare translations of one set with those of the first system (Koehn 2004, as sacreBLEU does it).

    Args:
        systems: hypotheses by name, two systems or more.
        references: as many lines.
        samples: resampled test sets; their seed is 12345, or that in ``SACREBLEU_SEED``.

    Returns:
        by name, ``bleu_ci``: half of the 95 % confidence interval of the BLEU; and, for all but the first, ``p_value``:
        how likely a difference as large is if the two were equally good.
    """
    assert len(systems) > 1, "one system has nothing to be compared with"
    named = [(name, list(hypotheses)) for name, hypotheses in systems.items()]
    test = PairedTest(named, {"BLEU": BLEU()}, [list(references)], test_type="bs", n_samples=samples)
    _, scores = test()
    found: dict[str, dict[str, float]] = {}
    for name, result in zip(systems, scores["BLEU"], strict=True):
        p_value: Any = result.p_value
        found[name] = {"bleu_ci": float(result.ci)} | ({} if p_value is None else {"p_value": float(p_value)})
    return found
