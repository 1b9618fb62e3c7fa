"""Is one supernet's BLEU (or chrF) better than another's on sentences like these? sacreBLEU's paired bootstrap.

It tells chance in the choice of test sentences from difference, not chance in training: that takes several seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sacrebleu.significance import PairedTest

from mos_fairseq.evaluation.scoring import DEFAULT_TOKENIZER, text_metric


def paired_bootstrap(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    samples: int,
    metric: str = "bleu",
    tokenizer: str = DEFAULT_TOKENIZER,
) -> dict[str, dict[str, Any]]:
    """Compare translations of one set with those of the first system (Koehn 2004, as sacreBLEU does it).

    Args:
        systems: hypotheses by name, two systems or more.
        references: as many lines.
        samples: resampled test sets; their seed is 12345, or that in ``SACREBLEU_SEED``.
        metric, tokenizer: what is compared: ``bleu``, or ``chrf``, which knows no tokenizer.

    Returns:
        by name, ``bleu_ci`` (``chrf_ci``): half of the 95 % confidence interval of the score; and, for all but the
        first, ``compared_with``, the first's name, and sacreBLEU's ``p_value`` of the difference, which is about that
        of a one-sided test (1 for equal scores); not corrected for the number of comparisons.

    Raises:
        ValueError: fewer than two systems.
    """
    if len(systems) < 2:
        raise ValueError(f"systems are {len(systems)}: one has nothing to be compared with")
    named: list[tuple[str, Sequence[str]]] = [(name, list(hypotheses)) for name, hypotheses in systems.items()]
    scorer = {metric: text_metric(metric, tokenizer)}
    test = PairedTest(named, scorer, [list(references)], test_type="bs", n_samples=samples)
    # to sacreBLEU a result may also be a name, and its numbers None: neither under these keys, after resampling
    scores: Mapping[str, Sequence[Any]] = test()[1]
    (name,) = scores.keys() - {"System"}  # as sacreBLEU calls it: chrF2, say
    (first, base), *others = zip(systems, scores[name], strict=True)
    found: dict[str, dict[str, Any]] = {first: {f"{metric}_ci": float(base.ci)}}
    for name, result in others:
        p_value = 1.0 if result.score == base.score else float(result.p_value)  # sacreBLEU's is 1/(samples + 1) then
        found[name] = {f"{metric}_ci": float(result.ci), "compared_with": first, "p_value": p_value}
    return found
