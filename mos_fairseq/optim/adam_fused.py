"""``adam_fused``: fairseq's Adam (decoupled weight decay) computed by torch's fused kernel, on CPUs and GPUs.

fairseq's own reads and writes every parameter in ten passes; the fused kernel does it in one. With a supernet that
matters: experts multiply the parameters, not the work of forward and backward.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import FairseqAdam
from omegaconf import II

from mos_fairseq.errors import InputError
from mos_fairseq.optim.values import read_betas

_ADAM_OPTIONS = ("lr", "betas", "eps", "weight_decay", "amsgrad")  # of a parameter group


@dataclass
class AdamFusedConfig(FairseqDataclass):
    """fairseq's options of ``adam`` that apply."""

    adam_betas: Any = field(default=(0.9, 0.999), metadata={"help": "betas for Adam optimizer"})
    adam_eps: float = field(default=1e-8, metadata={"help": "epsilon for Adam optimizer"})
    weight_decay: float = field(default=0.0, metadata={"help": "weight decay"})
    lr: list[float] = II("optimization.lr")


@register_optimizer("adam_fused", dataclass=AdamFusedConfig)
class AdamFused(FairseqOptimizer):
    """Adam of arXiv 1412.6980 with the weight decay of arXiv 1711.05101.

    Differs from fairseq's ``adam`` in where epsilon is added alone: to the second moment's root after the correction
    of its bias (as in both papers and torch), not before. Parameters without a gradient are not moved.

    Checkpoints hold the state in the form of ``adam``, under its name, so that either resumes the other's run.

    Raises:
        InputError: betas are not two numbers in [0, 1).
    """

    def __init__(self, cfg: AdamFusedConfig, params) -> None:
        super().__init__(cfg)
        self._optimizer = _FusedAdamW(params, **self.optimizer_config)

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """What overrides a checkpoint's values on resuming."""
        lr = self.cfg.lr
        return {
            "lr": lr if isinstance(lr, float) else lr[0],
            "betas": read_betas(adam_betas=self.cfg.adam_betas),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
        }

    @property
    def supports_memory_efficient_fp16(self) -> bool:
        """Asked by fairseq of options that have moments in fp32 beside parameters in half precision.

        Raises:
            InputError: always; the kernel keeps moments in the parameters' type.
        """
        raise InputError(
            "optimizer is adam_fused with --memory-efficient-fp16 or --memory-efficient-bf16: allowed is adam; without "
            "them, --fp16 and --bf16 take adam_fused"
        )

    def state_dict(self) -> dict[str, Any]:
        """The state in the form of fairseq's ``adam``."""
        return as_adam(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None) -> None:
        """Go on from a state of this optimizer or of fairseq's ``adam``.

        Raises:
            InputError: the moments are kept in half precision.
        """
        if any("exp_avg_scale" in moments for moments in state_dict["state"].values()):
            raise InputError("the checkpoint is of adam with --fp16-adam-stats, which adam_fused does not read")
        state = {
            index: moments | {"step": torch.tensor(float(moments["step"]))} if moments else moments
            for index, moments in state_dict["state"].items()
        }
        mine = self._optimizer.state_dict()["param_groups"]
        groups = [
            own | {name: group[name] for name in (*_ADAM_OPTIONS, "params") if name in group}
            for own, group in zip(mine, state_dict["param_groups"], strict=True)
        ]
        super().load_state_dict({"state": state, "param_groups": groups}, optimizer_overrides)


# fairseq resumes a run if the optimizer's class is called as the one in the checkpoint
AdamFused.__name__ = FairseqAdam.__name__


def as_adam(state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state of torch's AdamW in the form of fairseq's ``adam``: steps as numbers, and the options that it has."""
    state = {
        index: moments | {"step": int(moments["step"])} if moments else moments
        for index, moments in state_dict["state"].items()
    }
    groups = [{name: group[name] for name in (*_ADAM_OPTIONS, "params")} for group in state_dict["param_groups"]]
    return state_dict | {"state": state, "param_groups": groups}


def upgrade_checkpoints() -> None:
    """Let checkpoints of version 0.1.0 be resumed, which hold the state in torch's form, under the name AdamFused. A
    second call changes nothing."""
    original = checkpoint_utils._upgrade_state_dict
    if hasattr(original, "_mos_fairseq_original"):
        return

    @functools.wraps(original)
    def upgrade(state: dict[str, Any]) -> dict[str, Any]:
        state = original(state)
        last = state["optimizer_history"][-1]
        if last["optimizer_name"] == "AdamFused":
            last["optimizer_name"] = FairseqAdam.__name__
        optimizer = state.get("last_optimizer_state") or {}
        if any(group.get("fused") and "betas" in group for group in optimizer.get("param_groups", ())):
            state["last_optimizer_state"] = as_adam(optimizer)
        return state

    upgrade._mos_fairseq_original = original  # type: ignore[attr-defined]
    checkpoint_utils._upgrade_state_dict = upgrade


class _FusedAdamW(torch.optim.AdamW):
    supports_flat_params = True  # of FairseqOptimizer: it works element by element

    def __init__(self, params, **config: Any) -> None:
        super().__init__(params, fused=True, **config)
