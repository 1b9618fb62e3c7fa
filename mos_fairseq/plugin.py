"""The plugin itself: importing this module repairs fairseq (:mod:`mos_fairseq.compat`), then registers tasks, models,
criterions, optimizers and learning-rate schedulers."""

# relative: the import works under any folder name, or fails with one clear line
from . import compat, noise
from .compat.commands import running_command

if running_command() is not None:
    noise.leave_out_known()
compat.apply()

from . import criterions, models, optim, tasks  # noqa: E402

__all__ = ["criterions", "models", "optim", "tasks"]
