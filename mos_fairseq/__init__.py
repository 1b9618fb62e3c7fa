"""Mixture-of-Supernets for machine translation, a plugin for fairseq: ``--user-dir mos_fairseq``.

Importing it registers everything with fairseq (:mod:`mos_fairseq.plugin`). Only our own commands put that off until
they have read their arguments (:func:`mos_fairseq.cli.start`): torch and fairseq take seconds to import.
"""

from multiprocessing import current_process

# relative: works, or fails with one clear line, under any folder name
from .compat.commands import running_command
from .compat.error_hook import install_error_hook

__version__ = "0.1.0"

# a process that a command starts has no arguments to read, and unpickles what may need all of it
if (running_command() or "").split("-")[0] == "mos" and current_process().name == "MainProcess":
    install_error_hook()
else:
    from . import plugin  # noqa: F401
