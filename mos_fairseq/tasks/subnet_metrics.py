"""Metrics of several subnets measured on the same mini-batches, under stable names: ``loss_largest``, ..."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.logging import metrics
from fairseq.tasks.translation import EVAL_BLEU_ORDER
from sacrebleu.metrics import BLEU

from mos_fairseq.tasks.curves import key_of

# equal for all subnets of a mini-batch, so counted once
_COUNTS = ("ntokens", "nsentences", "sample_size", "total")
# kept for each subnet: name -> (its divisor, its conversion to the log's unit: bits, as in fairseq)
_LOSSES = {
    "loss": ("sample_size", math.log(2)),
    "nll_loss": ("ntokens", math.log(2)),
    "distillation_loss": ("sample_size", math.log(2)),
    "hidden_loss": ("sample_size", 1.0),
}
# what is correct: name -> among what; of --report-accuracy, and of fairseq's sentence_prediction
_CORRECT = {"n_correct": "total", "ncorrect": "nsentences"}
_BLEU = "_bleu_"
# `name@subnet` cannot clash with a criterion's own key
_SEPARATOR = "@"


def merge_logs(logs: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return one logging output for several subnets on one mini-batch.

    Everything except the counts of tokens and sentences is averaged over subnets. Losses, correct tokens and BLEU
    statistics are also kept for each subnet name (averaged if a name occurs more than once).
    """
    merged: dict[str, Any] = {}
    for key in logs[0][1]:
        if key in _COUNTS:
            merged[key] = logs[0][1][key]
        elif not key.startswith(_BLEU):
            merged[key] = sum(log[key] for _, log in logs) / len(logs)
    for name in dict.fromkeys(name for name, _ in logs):
        mine = [log for n, log in logs if n == name]
        for key in mine[0]:
            if key in _LOSSES or key in _CORRECT or key.startswith(_BLEU):
                merged[f"{key}{_SEPARATOR}{name}"] = sum(log[key] for log in mine) / len(mine)
    return merged


def reduce_subnet_metrics(logging_outputs: list[dict[str, Any]], perplexity: bool = True) -> None:
    """Log every subnet's metrics from logging outputs of :func:`merge_logs`, its perplexity on request."""

    keys = dict.fromkeys(key for log in logging_outputs for key in log if _SEPARATOR in key)
    totals = _on_host({key: sum(log.get(key, 0) for log in logging_outputs) for key in (*keys, *_COUNTS)})
    total = totals.__getitem__
    names = dict.fromkeys(key.split(_SEPARATOR)[1] for key in keys)
    for name in names:
        for key, (count, unit) in _LOSSES.items():
            if f"{key}{_SEPARATOR}{name}" in keys:
                weight = total(count)
                value = total(f"{key}{_SEPARATOR}{name}") / weight / unit
                metrics.log_scalar(key_of(key, name), value, weight, round=3)
        if perplexity:
            # in fairseq's cross_entropy, the loss is the nll
            nll = "nll_loss" if f"nll_loss{_SEPARATOR}{name}" in keys else "loss"
            metrics.log_derived(key_of("ppl", name), _perplexity(f"{nll}_{name}"))
        for correct, count in _CORRECT.items():
            if f"{correct}{_SEPARATOR}{name}" in keys:
                metrics.log_scalar(f"_n_correct_{name}", float(total(f"{correct}{_SEPARATOR}{name}")))
                metrics.log_scalar(f"_total_{name}", float(total(count)))
                metrics.log_derived(key_of("accuracy", name), _accuracy(name))
    with_bleu = [name for name in names if f"{_BLEU}sys_len{_SEPARATOR}{name}" in keys]
    for name in with_bleu:
        _log_bleu(name, total)
    if with_bleu:
        metrics.log_derived("bleu", lambda meters: round(float(np.mean([_bleu(meters, n) for n in with_bleu])), 2))


def _on_host(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values, those on a GPU read at once: fairseq reads its own one by one in every update."""
    there = [key for key, value in values.items() if getattr(value, "is_cuda", False)]
    if there:
        values = values | dict(zip(there, torch.stack([values[key] for key in there]).tolist(), strict=True))
    return values


def _perplexity(key: str):
    """Return what computes the perplexity from meters; None without a loss, as after a reset."""

    def of(meters) -> float | None:
        loss = meters[key].avg
        return None if loss is None else utils.get_perplexity(loss)

    return of


def _accuracy(name: str):
    """Return what computes the percentage of correct tokens or classes, as fairseq's ``accuracy``; None without any."""

    def of(meters) -> float | None:
        total = meters[f"_total_{name}"].sum
        return round(100 * meters[f"_n_correct_{name}"].sum / total, 3) if total > 0 else None

    return of


def _log_bleu(name: str, total) -> None:
    for kind in ("counts", "totals"):
        values = [float(total(f"{_BLEU}{kind}_{i}{_SEPARATOR}{name}")) for i in range(EVAL_BLEU_ORDER)]
        metrics.log_scalar(f"{_BLEU}{kind}_{name}", np.array(values))  # arrays are summed over batches
    for kind in ("sys_len", "ref_len"):
        metrics.log_scalar(f"{_BLEU}{kind}_{name}", float(total(f"{_BLEU}{kind}{_SEPARATOR}{name}")))
    metrics.log_derived(key_of("bleu", name), lambda meters: round(_bleu(meters, name), 2))


def _bleu(meters, name: str) -> float:
    """Return corpus BLEU from counts summed over batches, smoothed as fairseq's validation BLEU."""

    def whole(key: str) -> list[int]:
        return [int(v) for v in np.atleast_1d(meters[f"{_BLEU}{key}_{name}"].sum)]

    return BLEU.compute_bleu(
        correct=whole("counts"),
        total=whole("totals"),
        sys_len=whole("sys_len")[0],
        ref_len=whole("ref_len")[0],
        smooth_method="exp",
    ).score
