"""Mixture-of-Supernets for machine translation, a plugin for fairseq: ``--user-dir mos_fairseq``.

Importing it repairs what fairseq needs on today's torch and Python (:mod:`mos_fairseq.compat`), then registers tasks,
models, criterions, optimizers and learning-rate schedulers.
"""

import logging

logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)  # it asks for tensorboardX when imported

# relative: works, or fails with one clear line, under any folder name
from . import compat  # noqa: E402

compat.apply()

from . import criterions, models, optim, tasks  # noqa: E402

__all__ = ["criterions", "models", "optim", "tasks"]
__version__ = "0.1.0"
