"""Mixture-of-Supernets for machine translation, a plugin for fairseq: ``--user-dir mos_fairseq``.

Importing the package registers everything with fairseq (:mod:`mos_fairseq.plugin`). Only the ``mos-`` commands delay
that until they have read their arguments (:func:`mos_fairseq.cli.start`): torch and fairseq take seconds to import.
"""

from multiprocessing import current_process

# relative: the import works under any folder name, or fails with one clear line
from .compat.commands import running_command
from .compat.error_hook import install_error_hook

__version__ = "0.1.0"

# a process started by a command has no arguments to read, and may unpickle anything of the package
if (running_command() or "").split("-")[0] == "mos" and current_process().name == "MainProcess":
    install_error_hook()
else:
    from . import plugin  # noqa: F401
