"""Check ``--best-checkpoint-metric``: an unmeasured metric would end the training at its first validation."""

from __future__ import annotations

import logging
from collections.abc import Collection

from mos_fairseq.errors import InputError

logger = logging.getLogger(__name__)

# prefixes of names
_LARGER_IS_BETTER = ("bleu", "accuracy")
_SMALLER_IS_BETTER = ("loss", "nll_loss", "ppl", "alignment_loss")
# counts and speeds, which validation also logs
_TECHNICAL = {"bsz", "n_correct", "total", "wpb", "wps"}


def check_metric(metric: str, measured: Collection[str], subnets: Collection[str], needs: str) -> None:
    """Raise InputError unless ``metric`` is one of the names ``measured``.

    Args:
        subnets: names of the validation subnets.
        needs: text that names the metrics which need an option.
    """
    if metric in measured or metric == "num_updates":
        return
    own = {f"{name}_{subnet}": name for name in measured for subnet in subnets}
    kinds = sorted(name for name in measured if name[0] != "_" and name not in own and name not in _TECHNICAL)
    each = sorted({own[name] for name in measured if name in own})
    raise InputError(
        f"best_checkpoint_metric is {metric}: measured are {', '.join(kinds)}, and of each subnet {', '.join(each)} "
        f"with _NAME for NAME one of {', '.join(subnets)} (see --valid-subnets; {needs})"
    )


def warn_of_direction(metric: str, maximize: bool) -> None:
    """Warn if fairseq would keep the worst checkpoint as the best."""
    option = "--maximize-best-checkpoint-metric"
    if metric.startswith(_LARGER_IS_BETTER) and not maximize:
        text = "best_checkpoint_metric is %s, larger is better: without %s, checkpoint_best.pt is the worst"
        logger.warning(text, metric, option)
    elif metric.startswith(_SMALLER_IS_BETTER) and maximize:
        text = "best_checkpoint_metric is %s, smaller is better: with %s, checkpoint_best.pt is the worst"
        logger.warning(text, metric, option)
