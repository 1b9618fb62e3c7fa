"""``label_smoothed_cross_entropy_mos``: fairseq's label-smoothed cross entropy with one pass fewer over the
vocabulary. It does not know which subnet is active."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from torch import Tensor
from torch.autograd.function import once_differentiable

from mos_fairseq.errors import InputError, at_least, below_one
from mos_fairseq.masked import sentences_of
from mos_fairseq.modules import kernels
from mos_fairseq.predictions import Prediction


class _LabelSmoothedLoss(torch.autograd.Function):
    """Compute summed loss and nll as fairseq's ``label_smoothed_nll_loss`` does, in fp32.

    The gradient, softmax(z) - eps_i - (1 - eps - eps_i) onehot with eps_i = eps / (V - 1), is written over the saved
    log-probabilities. So no further [N, V] tensor is allocated; composed operations allocate two.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor, epsilon: float, ignore_index: int) -> tuple[Tensor, Tensor]:
        lprobs = F.log_softmax(logits, dim=-1, dtype=torch.float32)
        pad = target.eq(ignore_index)
        nll = -lprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1).masked_fill(pad, 0.0)
        loss = nll
        if epsilon > 0:
            eps_i = epsilon / (lprobs.size(-1) - 1)
            smooth = -lprobs.sum(-1).masked_fill(pad, 0.0)
            loss = (1.0 - epsilon - eps_i) * nll + eps_i * smooth
        ctx.save_for_backward(target, pad)
        ctx.lprobs, ctx.epsilon, ctx.dtype = lprobs, epsilon, logits.dtype
        nll_sum = nll.sum()
        ctx.mark_non_differentiable(nll_sum)
        return loss.sum(), nll_sum

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor, _grad_nll: Tensor):
        if ctx.lprobs is None:
            raise RuntimeError("the label-smoothed loss supports one backward pass; compute the loss again")
        grad, ctx.lprobs = ctx.lprobs, None
        target, pad = ctx.saved_tensors
        eps_i = ctx.epsilon / (grad.size(-1) - 1)
        grad.exp_()
        if eps_i:
            grad.sub_(eps_i)
        hot = torch.full_like(target, -(1.0 - ctx.epsilon - eps_i), dtype=grad.dtype)
        grad.scatter_add_(-1, target.unsqueeze(-1), hot.unsqueeze(-1))
        grad.mul_((~pad).to(grad.dtype).mul_(grad_loss).unsqueeze(-1))
        return grad.to(ctx.dtype), None, None, None


@dataclass
class LabelSmoothedCrossEntropyMosConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """fairseq's options: label_smoothing, report_accuracy, ignore_prefix_size, sentence_avg."""


@register_criterion("label_smoothed_cross_entropy_mos", dataclass=LabelSmoothedCrossEntropyMosConfig)
class LabelSmoothedCrossEntropyMosCriterion(LabelSmoothedCrossEntropyCriterion):
    """Label-smoothed cross entropy of the active subnet; equals fairseq's in loss, nll and gradients.

    For masked language models only masked tokens count. Without smoothing it then equals fairseq's ``masked_lm``. For
    classifiers it then equals fairseq's ``sentence_prediction``, and always reports the accuracy.
    """

    def __init__(
        self,
        task,
        sentence_avg: bool,
        label_smoothing: float,
        ignore_prefix_size: int = 0,
        report_accuracy: bool = False,
    ) -> None:
        self.prediction = Prediction.of(task)
        report_accuracy = report_accuracy or self.prediction.head is not None
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        self.padding_idx = self.prediction.padding_idx  # of targets
        below_one(label_smoothing=label_smoothing)
        at_least(0, ignore_prefix_size=ignore_prefix_size)
        if ignore_prefix_size and (hasattr(task, "mask_idx") or self.prediction.head is not None):
            kind = "masked language models" if self.prediction.head is None else "classifiers"
            raise InputError(f"ignore_prefix_size is {ignore_prefix_size}: {kind} predict no prefix")
        self._formed: tuple[dict, dict] | None = None

    def forward(self, model, sample, reduce=True):
        """Return loss, sample size and logging output, as fairseq does."""
        predicted = self._predicted(model, sample)
        loss, sample_size, log = super().forward(model, predicted, reduce)
        if "masked_tokens" in predicted["net_input"]:  # fairseq takes the rows of the target for sentences
            log["nsentences"] = sentences_of(sample)
            if self.sentence_avg:
                sample_size = log["sample_size"] = log["nsentences"]
        return loss, sample_size, log

    def _predicted(self, model, sample: dict) -> dict:
        """Return the mini-batch in the form that ``model`` predicts, the same for all subnets."""
        if self._formed is None or self._formed[0] is not sample:
            formed = self.prediction.form(model, sample)
            if formed is sample:
                return sample
            self._formed = sample, formed
        return self._formed[1]

    def compute_loss(self, model, net_output, sample, reduce=True) -> tuple[Tensor, Tensor]:
        """Return loss and nll; the fast path needs a summed loss and a model that outputs logits."""
        fast = reduce and getattr(model, "adaptive_softmax", None) is None and kernels.policy().enabled
        if not fast:
            return super().compute_loss(model, net_output, sample, reduce)
        logits, target = net_output[0], model.get_targets(sample, net_output)
        skip = self.ignore_prefix_size
        if skip > 0:
            logits, target = logits[:, skip:], target[:, skip:]
        return _LabelSmoothedLoss.apply(
            logits.reshape(-1, logits.size(-1)), target.reshape(-1), self.eps, self.padding_idx
        )
