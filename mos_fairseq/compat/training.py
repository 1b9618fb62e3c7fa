"""Repairs to fairseq's training: data parallelism, mixed precision on a CPU, and atomic checkpoints."""

from __future__ import annotations

import functools
import logging
import os
from contextlib import suppress
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq import trainer as trainer_module
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.models import FairseqEncoder, distributed_fairseq_model
from fairseq.nan_detector import NanDetector
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.trainer import Trainer

from ..errors import InputError, write_failure

logger = logging.getLogger(__name__)

# --- values that are not finite ---


class _NanDetector(NanDetector):
    """fairseq's search for the first value that is not finite, without gradients at an encoder's output: torch looks
    for a tensor in it, and fairseq's encoders return lists of tensors."""

    def add_hooks(self, module: torch.nn.Module) -> None:
        """Register fairseq's hooks."""
        if isinstance(module, FairseqEncoder):
            self.fhooks.append(module.register_forward_hook(self.fhook_fn))
        else:
            super().add_hooks(module)


def find_what_is_not_finite() -> None:
    """Let a training that diverges end with fairseq's ``FloatingPointError``. The search for its cause would end in a
    ``StopIteration``."""
    trainer_module.NanDetector = _NanDetector


# --- data parallel ---


def let_models_choose_data_parallelism() -> None:
    """Wrap a model by its method ``data_parallel(process_group, bucket_mb)`` if it has one; wrap others on CPUs, too.

    fairseq's two wrappers lose some gradients of supernets and invent others (see
    ``mos_fairseq.distributed.SupernetDataParallel``). fairseq also always passes a GPU's number to torch's wrapper,
    which refuses it for a model on a CPU. ``DistributedFairseqModel`` adds its timeout and its proxy to any wrapper, so
    only the two wrapper classes are replaced, and only in its module.
    """
    if hasattr(distributed_fairseq_model.DistributedDataParallel, "_mos_fairseq_original"):
        return
    torch_wrapper = distributed_fairseq_model.DistributedDataParallel
    legacy_wrapper = distributed_fairseq_model.LegacyDistributedDataParallel

    @functools.wraps(torch_wrapper, updated=())
    def make_torch_wrapper(module: torch.nn.Module, **options: Any) -> torch.nn.Module:
        if hasattr(module, "data_parallel"):
            return module.data_parallel(options["process_group"], options["bucket_cap_mb"])
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            options |= {"device_ids": None, "output_device": None}
        return torch_wrapper(module=module, **options)

    @functools.wraps(legacy_wrapper, updated=())
    def make_legacy_wrapper(module: torch.nn.Module, **options: Any) -> torch.nn.Module:
        if hasattr(module, "data_parallel"):
            return module.data_parallel(options["process_group"])
        return legacy_wrapper(module=module, **options)

    make_torch_wrapper._mos_fairseq_original = torch_wrapper  # type: ignore[attr-defined]
    make_legacy_wrapper._mos_fairseq_original = legacy_wrapper  # type: ignore[attr-defined]
    distributed_fairseq_model.DistributedDataParallel = make_torch_wrapper
    distributed_fairseq_model.LegacyDistributedDataParallel = make_legacy_wrapper


def let_processes_differ() -> None:
    """Accept different gradient norms in data-parallel processes if the task trains in local rounds
    (``trains_locally``). fairseq otherwise stops with an error."""
    if hasattr(Trainer._check_grad_norms, "_mos_fairseq_original"):
        return
    original = Trainer._check_grad_norms

    @functools.wraps(original)
    def check_grad_norms(self: Trainer, grad_norm: torch.Tensor) -> None:
        if not getattr(self.task, "trains_locally", False):
            original(self, grad_norm)

    check_grad_norms._mos_fairseq_original = original  # type: ignore[attr-defined]
    Trainer._check_grad_norms = check_grad_norms


# --- mixed precision ---


def skip_overflow_without_scaler() -> None:
    """With ``--amp`` on a CPU, skip updates whose gradients are not finite, as on a GPU.

    Without CUDA, torch's GradScaler is off and lets every step pass: fairseq notices the overflow, but one NaN makes
    all weights NaN. The scaler then also lacks the back-off factor that fairseq needs to report the overflow.
    """
    if hasattr(AMPOptimizer.step, "_mos_fairseq_original"):
        return
    original = AMPOptimizer.step

    @functools.wraps(original)
    def step(self: AMPOptimizer) -> None:
        if self.scaler.is_enabled():
            original(self)
            return
        grads = [p.grad for p in self.fp32_optimizer.params if p.grad is not None]
        if all(torch.isfinite(grad).all() for grad in grads):
            self.fp32_optimizer.step()

    def next_loss_scale(self: AMPOptimizer) -> float:
        scaler = self.scaler
        return scaler.get_scale() * scaler.get_backoff_factor() if scaler.is_enabled() else scaler.get_scale()

    step._mos_fairseq_original = original  # type: ignore[attr-defined]
    AMPOptimizer.step = step
    AMPOptimizer.next_loss_scale = property(next_loss_scale)


# --- checkpoints ---


class UnwritableCheckpointError(InputError, OSError, RuntimeError):
    """The file cannot be written. Also of the types that the system and torch raise, for programs that catch those."""


def write_checkpoints_whole() -> None:
    """Write every checkpoint atomically, and report a full disk in one line.

    fairseq writes one file of a save to a temporary name and renames it, but then *copies* it over
    ``checkpoint_last.pt`` and the others. A run killed during the copy has no last checkpoint to resume from. After an
    error fairseq appends to the incomplete file, and leaves the temporary file on the full disk.
    """
    if hasattr(checkpoint_utils.torch_persistent_save, "_mos_fairseq_original"):
        return
    save, copy = checkpoint_utils.torch_persistent_save, PathManager.copy

    @functools.wraps(save)
    def torch_persistent_save(obj: Any, filename: Any, async_write: bool = False) -> None:
        if async_write or not isinstance(filename, str) or not PathManager.supports_rename(filename):
            save(obj, filename, async_write)
            return
        _write_renamed(filename, lambda file: torch.save(obj, file))

    @functools.wraps(copy)
    def copy_whole(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
        renamed = PathManager.supports_rename(src_path) and PathManager.supports_rename(dst_path)
        if not (overwrite and renamed):  # fairseq copies checkpoints with overwrite
            return copy(src_path, dst_path, overwrite)
        with open(src_path, "rb") as source:
            _write_renamed(os.path.realpath(dst_path), lambda file: _copy(source, file))  # a link stays a link
        return dst_path

    torch_persistent_save._mos_fairseq_original = save  # type: ignore[attr-defined]
    copy_whole._mos_fairseq_original = copy  # type: ignore[attr-defined]
    checkpoint_utils.torch_persistent_save = torch_persistent_save
    PathManager.copy = staticmethod(copy_whole)


def _copy(source: Any, target: Any) -> None:
    while chunk := source.read(1 << 24):
        target.write(chunk)


def _write_renamed(path: str, write: Any) -> None:
    """Write under fairseq's temporary name, then rename. The next run overwrites the file that a killed run left."""
    temporary = f"{path}.tmp"
    try:
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.remove(temporary)
            raise
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        reason = f"checkpoint {path}: cannot be written ({write_failure(error)})"
        raise UnwritableCheckpointError(reason) from error


def give_tasks_back_their_state() -> None:
    """Restore a task's state from the checkpoint when a training resumes.

    fairseq writes ``task.state_dict()`` into every checkpoint. It restores the state when a model is loaded, but not
    when a training resumes. Tasks request it by ``goes_on_with_state``. It is restored only with the optimizer's state:
    without that, a new training begins, and such a task gets the state by ``task.compare_with_start(state)`` in the
    process that reads the file. This process broadcasts a state that is restored to the others, and calls
    ``task.compare_with_earlier(cfg)``, if the task has it, with the checkpoint's configuration.

    For these tasks, another optimizer than the checkpoint's is a user's mistake, an average of weights
    (``--store-ema``) goes on in its rhythm, and one that the checkpoint lacks begins with the checkpoint's weights.
    """
    if hasattr(Trainer.load_checkpoint, "_mos_fairseq_original"):
        return
    original = Trainer.load_checkpoint

    @functools.wraps(original)
    def load_checkpoint(self: Trainer, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any) -> Any:
        compare = getattr(self.task, "compare_with_earlier", None)
        takes_state = getattr(self.task, "goes_on_with_state", False)
        if not (takes_state or compare):
            return original(self, filename, reset_optimizer, *args, **kwargs)
        read = checkpoint_utils.load_checkpoint_to_cpu
        kept: dict[str, Any] = {}  # not the whole state, whose memory fairseq frees

        def noted(*args: Any, **kwargs: Any) -> dict[str, Any]:
            state = read(*args, **kwargs)
            if self.cfg.ema.store_ema:  # fairseq looks for the weights where it has deleted them
                state.get("extra_state", {}).setdefault("ema", state["model"])
            if not reset_optimizer and state.get("last_optimizer_state") is not None:
                kept.update((key, state.get(key)) for key in ("cfg", "task_state"))
            elif takes_state:
                self.task.compare_with_start(state.get("task_state") or {})
            return state

        checkpoint_utils.load_checkpoint_to_cpu = noted
        try:
            extra_state = original(self, filename, reset_optimizer, *args, **kwargs)
        except AssertionError as error:
            if "please reset the optimizer" not in str(error):
                raise
            raise InputError(f"checkpoint {filename}: {error}") from error
        finally:
            checkpoint_utils.load_checkpoint_to_cpu = read
        if self.cfg.ema.store_ema:  # fairseq counts from 0
            self.ema.update_freq_counter = self.get_num_updates() % max(1, self.cfg.ema.ema_update_freq)
        if compare and kept.get("cfg"):
            compare(kept["cfg"])
        if not takes_state:
            return extra_state
        found = kept.get("task_state")
        if self.data_parallel_world_size > 1:
            group = self.data_parallel_process_group
            found = distributed_utils.broadcast_object(found, src_rank=0, group=group, dist_device=self.device)
        if found:
            self.task.load_state_dict(found)
        return extra_state

    load_checkpoint._mos_fairseq_original = original  # type: ignore[attr-defined]
    Trainer.load_checkpoint = load_checkpoint


def explain_missing_checkpoints() -> None:
    """For tasks with ``goes_on_with_state``: warn if the file of ``--restore-file`` is missing, with which fairseq
    silently begins a new training, and refuse what it refuses of ``--finetune-from-model`` in one line."""
    if hasattr(checkpoint_utils.load_checkpoint, "_mos_fairseq_original"):
        return
    original = checkpoint_utils.load_checkpoint

    @functools.wraps(original)
    def load_checkpoint(cfg: Any, trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
        if not getattr(trainer.task, "goes_on_with_state", False):
            return original(cfg, trainer, *args, **kwargs)
        if cfg.restore_file != "checkpoint_last.pt" and not PathManager.isfile(cfg.restore_file):
            logger.warning("restore_file is %s: no such file; the training begins anew", cfg.restore_file)
        try:
            return original(cfg, trainer, *args, **kwargs)
        except ValueError as error:
            if not str(error).startswith("--finetune-from-model"):
                raise
            raise InputError(str(error).split(": {")[0]) from error

    load_checkpoint._mos_fairseq_original = original  # type: ignore[attr-defined]
    checkpoint_utils.load_checkpoint = load_checkpoint


def announce_checkpoints() -> None:
    """Call ``task.before_checkpoint()``, if the task has it, in all processes before a checkpoint is written. fairseq
    only reads weights and moments of the first process. ``crash.pt`` is written without the call."""
    if hasattr(checkpoint_utils.save_checkpoint, "_mos_fairseq_original"):
        return
    original = checkpoint_utils.save_checkpoint

    @functools.wraps(original)
    def save_checkpoint(cfg: Any, trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
        if not cfg.no_save and hasattr(trainer.task, "before_checkpoint"):
            trainer.task.before_checkpoint()
        return original(cfg, trainer, *args, **kwargs)

    save_checkpoint._mos_fairseq_original = original  # type: ignore[attr-defined]
    checkpoint_utils.save_checkpoint = save_checkpoint
