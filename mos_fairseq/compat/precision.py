"""Repairs to fairseq's training in half precision."""

from __future__ import annotations

import functools
import importlib.util
import logging
import sys
from typing import Any

from fairseq.distributed import utils as distributed_utils
from fairseq.optim import FP16Optimizer

from ..errors import InputError

logger = logging.getLogger(__name__)


def keep_missing_gradients() -> None:
    """With ``--fp16`` and ``--bf16``, keep missing gradients missing, for models with a search space.

    fairseq copies gradients to fp32, all into one tensor or each into its own, and writes zeros for missing ones. Adam
    then moves layers that were in no subnet of an update, by their momentum. A single tensor cannot express a missing
    gradient, so supernets use a tensor for each parameter, as ``--fp16-no-flatten-grads`` does.
    """
    if hasattr(FP16Optimizer._sync_fp16_grads_to_fp32, "_mos_fairseq_original"):
        return
    build, sync, load = (
        FP16Optimizer.build_optimizer.__func__,
        FP16Optimizer._sync_fp16_grads_to_fp32,
        FP16Optimizer.load_state_dict,
    )

    def is_sparse(optimizer: FP16Optimizer) -> bool:
        return getattr(optimizer, "_mos_fairseq_sparse", False)

    @functools.wraps(build)
    def build_optimizer(cls: type[FP16Optimizer], cfg: Any, params: Any, **options: Any) -> FP16Optimizer:
        is_supernet = bool(getattr(getattr(cfg, "model", None), "search_space", None))
        if is_supernet and not cfg.common.fp16_no_flatten_grads:
            logger.info("a supernet's gradients are kept apart (--fp16-no-flatten-grads): absent layers have none")
            cfg.common.fp16_no_flatten_grads = True
        optimizer = build(cls, cfg, params, **options)
        optimizer._mos_fairseq_sparse = is_supernet
        return optimizer

    @functools.wraps(sync)
    def sync_fp16_grads_to_fp32(self: FP16Optimizer) -> None:
        needed = self._needs_sync
        sync(self)
        if needed and is_sparse(self):
            for parameter, copy in zip(self.fp16_params, self.fp32_params, strict=True):
                if parameter.requires_grad and parameter.grad is None:
                    copy.grad = None

    @functools.wraps(load)
    def load_state_dict(self: FP16Optimizer, state_dict: dict, optimizer_overrides: dict | None = None) -> None:
        stored = sum(len(group["params"]) for group in state_dict["param_groups"])
        if is_sparse(self) and stored == 1 < len(self.fp32_params):
            raise InputError(
                "the checkpoint's optimizer is of --fp16 with all parameters in one tensor, as up to version 0.1.0: "
                "go on with --reset-optimizer"
            )
        load(self, state_dict, optimizer_overrides)

    sync_fp16_grads_to_fp32._mos_fairseq_original = sync  # type: ignore[attr-defined]
    FP16Optimizer.build_optimizer = classmethod(build_optimizer)
    FP16Optimizer._sync_fp16_grads_to_fp32 = sync_fp16_grads_to_fp32
    FP16Optimizer.load_state_dict = load_state_dict


def train_in_bf16_without_tpu() -> None:
    """Let ``--bf16`` work without a TPU. fairseq's command line takes it for a TPU option and stops with
    ``'NoneType' object has no attribute 'xla_device'``. (With Hydra, fairseq itself accepts it.)"""
    original = distributed_utils.call_main
    if hasattr(original, "_mos_fairseq_original"):
        return

    @functools.wraps(original)
    def call_main(cfg: Any, main: Any, **options: Any) -> Any:
        has_tpu = importlib.util.find_spec("torch_xla") is not None
        if cfg.common.bf16 and cfg.common.tpu and not has_tpu and "--tpu" not in sys.argv:
            cfg.common.tpu = False
        return original(cfg, main, **options)

    call_main._mos_fairseq_original = original  # type: ignore[attr-defined]
    distributed_utils.call_main = call_main
