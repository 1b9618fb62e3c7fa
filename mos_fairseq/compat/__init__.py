"""The repairs that fairseq 0.12.3 needs on a current torch, numpy and Python.

``mos_fairseq/__init__.py`` calls :func:`apply` before anything else. Every repair is one small function. Its docstring
names the defect; it may be called twice, and does nothing where it is not needed.
``MOS_FAIRSEQ_COMPAT=off`` in the environment leaves all of them out.

This file, :mod:`.commands`, :mod:`.error_hook` and :mod:`.first_use` need the standard library only.
"""

from __future__ import annotations

import logging
import os

from ..errors import InputError  # relative: see require_package_name
from .commands import running_command
from .error_hook import install_error_hook, let_hydra_pass_mistakes
from .first_use import on_first_use

SWITCH = "MOS_FAIRSEQ_COMPAT"

logger = logging.getLogger(__name__)


def apply() -> None:
    """Apply every repair, and in a command also report mistakes in one line; a second call changes nothing.

    A log line of level DEBUG lists the active repairs.

    Raises:
        InputError: the package has another name, or MOS_FAIRSEQ_COMPAT another value than on and off.
    """
    require_package_name()
    if not _wanted():
        logger.debug("%s=off: fairseq is as it is", SWITCH)
        return
    if (command := running_command()) is not None:
        install_error_hook()
    if command == "fairseq-hydra-train":
        let_hydra_pass_mistakes()
    told = logger.isEnabledFor(logging.DEBUG)  # read now: importing fairseq lowers the root logger's level
    if command is not None:
        _import_fairseq()
    from . import repairs

    for repair in repairs.ALL:
        repair()
    if told:
        logger.debug("repairs of fairseq: %s", ", ".join(repair.__name__ for repair in repairs.ALL))


def _import_fairseq() -> None:
    """Import fairseq without what it seldom uses."""
    import torch  # noqa: F401  not with placeholders

    with on_first_use():
        import fairseq  # noqa: F401


def _wanted() -> bool:
    value = os.environ.get(SWITCH, "on").lower()
    if value not in ("on", "off", ""):
        raise InputError(f"{SWITCH} is {value} in the environment: allowed are on and off")
    return value != "off"


def require_package_name() -> None:
    """Refuse to run under a second name.

    ``--user-dir`` imports a folder by its own name. A renamed copy of this package, or a link to it, would register
    every model once per name, and fairseq would stop with 'Cannot register duplicate model'. All imports up to this
    check are relative, so that it is reached under a wrong name, too.
    """
    package = __name__.partition(".")[0]
    if package != "mos_fairseq":
        raise InputError(f"--user-dir ends in {package}: the folder has to be called mos_fairseq")
