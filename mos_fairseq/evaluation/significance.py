"""Test whether a supernet's BLEU (or chrF) is better than another's, by sacreBLEU's paired bootstrap.

It covers chance in the choice of test sentences, not chance in training, which needs several seeds.
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
    """Compare translations of one set with the first system's (Koehn 2004, as sacreBLEU does it).

    Args:
        systems: hypotheses by name, two systems or more.
        references: one line for each hypothesis.
        samples: resampled test sets; their seed is 12345, or the one in ``SACREBLEU_SEED``.
        metric: ``bleu``, or ``chrf``, which has no tokenizer.
        tokenizer: BLEU's.

    Returns:
        by name, ``bleu_ci`` (``chrf_ci``), half of the score's 95 % confidence interval. All but the first also have
        ``compared_with``, the first's name, and ``p_value``, sacreBLEU's for the difference. It is close to that of a
        one-sided test (1 for equal scores) and not corrected for the number of comparisons.

    Raises:
        ValueError: fewer than two systems.
    """
    if len(systems) < 2:
        raise ValueError(f"systems are {len(systems)}: a comparison needs two or more")
    named: list[tuple[str, Sequence[str]]] = [(name, list(hypotheses)) for name, hypotheses in systems.items()]
    scorer = {metric: text_metric(metric, tokenizer)}
    test = PairedTest(named, scorer, [list(references)], test_type="bs", n_samples=samples)
    # sacreBLEU's type also allows names and None as results; neither occurs under these keys after resampling
    scores: Mapping[str, Sequence[Any]] = test()[1]
    (name,) = scores.keys() - {"System"}  # sacreBLEU's own name, for example chrF2
    (first, base), *others = zip(systems, scores[name], strict=True)
    found: dict[str, dict[str, Any]] = {first: {f"{metric}_ci": float(base.ci)}}
    for name, result in others:
        p_value = 1.0 if result.score == base.score else float(result.p_value)  # sacreBLEU: 1/(samples + 1) if equal
        found[name] = {f"{metric}_ci": float(result.ci), "compared_with": first, "p_value": p_value}
    return found
