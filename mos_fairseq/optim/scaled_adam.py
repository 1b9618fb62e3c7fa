"""``scaled_adam``: Adam with steps in proportion to each tensor's size, which it learns, too (arXiv 2310.11230).

TODM (arXiv 2309.01947) trains its supernets with it. Here a tensor without a gradient, of a layer that no subnet of the
update has, stays as it is with all that is known of it; and each of a mixture's experts is a tensor of its own.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II
from torch import Tensor

from mos_fairseq.errors import InputError, at_least
from mos_fairseq.optim.values import read_betas

_FIRST_THRESHOLDS = (10, 20, 40)  # updates of provisional thresholds, twice as high
_SCALAR_MAX = 10.0
_NO_BIAS = 0.99  # from here on the second moment needs no correction of its bias


@dataclass
class ScaledAdamConfig(FairseqDataclass):
    """Options of the optimizer, with the defaults of the paper's authors."""

    scaled_adam_betas: Any = field(default=(0.9, 0.98), metadata={"help": "betas of momentum and second moments"})
    scaled_adam_eps: float = field(default=1e-8, metadata={"help": "epsilon beside the second moments' roots"})
    scaled_adam_clip: float = field(
        default=2.0, metadata={"help": "gradients are clipped at so many times their median norm; 0: never"}
    )
    scaled_adam_clip_period: int = field(default=100, metadata={"help": "updates of which the median is taken"})
    scaled_adam_size_period: int = field(default=4, metadata={"help": "updates between those of a tensor's size"})
    scaled_adam_size_lr: float = field(
        default=0.1, metadata={"help": "rate of sizes, and of tensors of one number, over --lr"}
    )
    scaled_adam_min_rms: float = field(default=1e-5, metadata={"help": "a tensor's size counts as this at least"})
    scaled_adam_max_rms: float = field(default=3.0, metadata={"help": "a tensor's size is not increased above this"})
    fp16: bool = II("common.fp16")
    bf16: bool = II("common.bf16")
    lr: list[float] = II("optimization.lr")


@register_optimizer("scaled_adam", dataclass=ScaledAdamConfig)
class ScaledAdam(FairseqOptimizer):
    """ScaledAdam; the learning rate is relative, 0.03 to 0.045 with ``--lr-scheduler eden``.

    With g the gradient, clipped, of a tensor p, and r its root mean square, at least ``min_rms``, of the last update
    of its size::

        v <- beta2 v + (1 - beta2) g²
        D = -lr r g / (sqrt(v / (1 - beta2^t)) + eps)
        every fourth step: D <- D + p S,  S = -lr/10 sqrt(1 - beta2^t) sum(s) / (sqrt(u) + eps)
        d <- beta1 d + (1 - beta1) D
        p <- p + d

    s is sum(p g) of each of the last four steps, u the moving average of their squares' mean with beta2^4; S lies
    within -0.1..0.1, does not lift r above ``max_rms``, and is 0 below ``min_rms``. t counts the steps of this tensor.
    A tensor of one number has r = 1, a tenth of the rate, no S, and stays within -10..10. Gradients are scaled down
    where the norm of all r g is above ``clip`` times the median of its last 100, known anew every 100 updates.

    A parameter whose attribute ``stacked_experts`` is true holds a tensor in each place of its first dimension.

    Raises:
        InputError: bad options, or fairseq's copies of parameters in half precision, which lose what is missing.
    """

    def __init__(self, cfg: ScaledAdamConfig, params) -> None:
        super().__init__(cfg)
        for name in ("fp16", "bf16"):
            if getattr(cfg, name):
                raise InputError(
                    f"optimizer is scaled_adam with --{name}, which makes zeros of missing gradients: allowed are "
                    "full precision and --amp"
                )
        at_least(1, scaled_adam_clip_period=cfg.scaled_adam_clip_period)
        at_least(1, scaled_adam_size_period=cfg.scaled_adam_size_period)
        for name in ("clip", "eps", "size_lr", "min_rms", "max_rms"):
            at_least(0.0, **{f"scaled_adam_{name}": getattr(cfg, f"scaled_adam_{name}")})
        self._optimizer = _ScaledAdam(params, self.optimizer_config)

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """What overrides a checkpoint's values on resuming."""
        cfg = self.cfg
        return {
            "lr": cfg.lr if isinstance(cfg.lr, float) else cfg.lr[0],
            "betas": read_betas(scaled_adam_betas=cfg.scaled_adam_betas),
            "eps": cfg.scaled_adam_eps,
            "clip": cfg.scaled_adam_clip,
            "clip_period": cfg.scaled_adam_clip_period,
            "size_period": cfg.scaled_adam_size_period,
            "size_lr": cfg.scaled_adam_size_lr,
            "min_rms": cfg.scaled_adam_min_rms,
            "max_rms": cfg.scaled_adam_max_rms,
        }

    def load_state_dict(self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None) -> None:
        """Go on from a state of this optimizer.

        Raises:
            InputError: the state has another ``size_period``, of which it keeps as many steps.
        """
        stored, wanted = state_dict["param_groups"][0]["size_period"], self.cfg.scaled_adam_size_period
        if stored != wanted:
            raise InputError(f"scaled_adam_size_period is {wanted}: the checkpoint's is {stored}, allowed is the same")
        super().load_state_dict(state_dict, optimizer_overrides)


class _ScaledAdam(torch.optim.Optimizer):
    """A group keeps, beside its options, the norms and the threshold of clipping: ``updates``, ``norms``,
    ``threshold``. The state of a tensor of size [B, ...], where B is of stacked experts, or 1 in front::

        step: steps of this tensor                          exp_avg_sq, delta: as the parameter
        rms, scale_exp_avg_sq: [B, 1, ...]                  scale_grads: [size_period, B, 1, ...]
    """

    def __init__(self, params, config: dict[str, Any]) -> None:
        super().__init__(params, config | {"updates": 0, "norms": [], "threshold": None})

    @torch.no_grad()
    def step(self, closure=None) -> Any:
        """One update of all parameters that have gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            present = [p for p in group["params"] if p.grad is not None]
            for p in present:
                if not self.state[p]:
                    self.state[p] = _fresh(p, group["size_period"])
            clip = self._clip_scale(group, present)
            for p in present:
                grad = p.grad if clip == 1 else p.grad * clip
                p.add_(_step(group, _rows(p), self.state[p], _rows(p, grad)).view_as(p))
                if _is_scalar(_rows(p)):
                    p.clamp_(-_SCALAR_MAX, _SCALAR_MAX)
                self.state[p]["step"] += 1
            group["updates"] += 1
        return loss

    def _clip_scale(self, group: dict[str, Any], present: list[Tensor]) -> float:
        """By what gradients are multiplied; takes note of their norm."""
        update = group["updates"]
        if not group["clip"] or not update or not present:
            return 1.0
        scaled = (p.grad * group["size_lr"] if _is_scalar(_rows(p)) else self._sized(p) for p in present)
        norm = torch.stack([part.square().sum() for part in scaled]).sum().sqrt().item()
        norms = group["norms"] = [*group["norms"], norm][-group["clip_period"] :]
        provisional = update in _FIRST_THRESHOLDS and update < group["clip_period"]
        if provisional or update % group["clip_period"] == 0:
            median = sorted(norms)[len(norms) // 4 * 2]  # as its authors take it
            group["threshold"] = group["clip"] * median * (2 if provisional else 1)
        return 1.0 if group["threshold"] is None else min(1.0, group["threshold"] / (norm + 1e-20))

    def _sized(self, p: Tensor) -> Tensor:
        return _rows(p, p.grad) * self.state[p]["rms"]


def _rows(p: Tensor, value: Tensor | None = None) -> Tensor:
    """A parameter, or a value of its shape, as [B, ...]: tensors in the first dimension."""
    value = p if value is None else value
    return value if getattr(p, "stacked_experts", False) else value.unsqueeze(0)


def _is_scalar(rows: Tensor) -> bool:
    return rows.numel() == len(rows)


def _rms(rows: Tensor) -> Tensor:
    return rows.square().mean(dim=tuple(range(1, rows.dim())), keepdim=True).sqrt()


def _fresh(p: Tensor, size_period: int) -> dict[str, Any]:
    state: dict[str, Any] = {"step": 0, "exp_avg_sq": torch.zeros_like(p), "delta": torch.zeros_like(p)}
    if not _is_scalar(_rows(p)):
        rms = _rms(_rows(p))
        state |= {"rms": rms, "scale_exp_avg_sq": torch.zeros_like(rms)}
        state["scale_grads"] = rms.new_zeros(size_period, *rms.shape)
    return state


def _step(group: dict[str, Any], rows: Tensor, state: dict[str, Any], grad: Tensor) -> Tensor:
    """What is added to [B, ...]."""
    beta1, beta2 = group["betas"]
    scalar = _is_scalar(rows)
    exp_avg_sq, delta = state["exp_avg_sq"].view_as(rows), state["delta"].view_as(rows)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    correction = 1 - beta2 ** (state["step"] + 1)
    second = exp_avg_sq / correction if correction < _NO_BIAS else exp_avg_sq
    step = grad / second.sqrt().add_(group["eps"])
    step *= -group["lr"] * (group["size_lr"] if scalar else 1)
    if not scalar:
        size_step = _size_step(group, rows, state, grad)  # also renews the size
        step *= state["rms"].clamp(min=group["min_rms"])
        if size_step is not None:
            step.addcmul_(rows, size_step)
    return delta.mul_(beta1).add_(step, alpha=1 - beta1)


def _size_step(group: dict[str, Any], rows: Tensor, state: dict[str, Any], grad: Tensor) -> Tensor | None:
    """By which share each of [B, ...] grows, [B, 1, ...], in every ``size_period``-th of its steps."""
    period, rms, total = group["size_period"], state["rms"], state["scale_exp_avg_sq"]
    place = state["step"] % period
    state["scale_grads"][place] = (rows * grad).sum(dim=tuple(range(1, rows.dim())), keepdim=True)
    if place != period - 1:
        return None
    rms.copy_(_rms(rows))
    if not state["step"]:
        return None
    beta = group["betas"][1] ** period
    total.mul_(beta).add_(state["scale_grads"].square().mean(0), alpha=1 - beta)
    correction = (1 - beta ** ((state["step"] + 1) // period)) ** 0.5
    step = state["scale_grads"].sum(0) / (total.sqrt() + group["eps"]) * (-group["lr"] * group["size_lr"] * correction)
    step = step.masked_fill(rms < group["min_rms"], 0.0).clamp_(-0.1, 0.1)
    return torch.minimum(step, (group["max_rms"] - rms) / rms)
