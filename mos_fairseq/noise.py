"""What third parties say again and again in fairseq's commands and ours, and what nobody can do anything about there.

Only commands leave it out: a program that imports the package keeps its own filters and loggers.
"""

from __future__ import annotations

import logging
import os
import warnings

VERBOSE = "MOS_FAIRSEQ_VERBOSE"
# regular expressions for the beginning of a warning
_WARNINGS = (
    # fairseq was written for Hydra 1.0
    r"hydra\.experimental\.\w+\(\) is no longer experimental",
    r"\s*The version_base parameter is not specified",
    r"In '.*': Usage of deprecated keyword in package header",
    r"\s*'.*' is validated against ConfigStore schema with the same name",
    r"\s*The strict flag in the compose API is deprecated",
    # and for torch 1.x
    r"`torch\.cuda\.amp\.\w+\(args\.\.\.\)` is deprecated",
    r"Support for mismatched key_padding_mask and attn_mask is deprecated",
    # it always asks for pinned memory
    r"'pin_memory' argument is set as true but no accelerator is found",
)
_NEEDS_TENSORBOARD = "fairseq.tasks.text_to_speech"  # asks for tensorboardX when fairseq is imported


def leave_out_known() -> None:
    """Leave known messages of third parties out, unless MOS_FAIRSEQ_VERBOSE=1; a second call changes nothing.

    Filters of warnings that the user has set (``PYTHONWARNINGS``, ``-W``) come first.
    """
    if os.environ.get(VERBOSE, "0") not in ("", "0"):
        return
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message, append=True)
    logging.getLogger(_NEEDS_TENSORBOARD).setLevel(logging.WARNING)
    root, wanted = logging.getLogger(), os.environ.get("LOGLEVEL", "INFO").upper()
    if root.level == logging.DEBUG != logging.getLevelName(wanted):  # by another module of fairseq
        root.setLevel(logging.INFO)
    sacrebleu = logging.getLogger("sacrebleu")
    if not any(isinstance(known, _Once) for known in sacrebleu.filters):
        sacrebleu.addFilter(_Once())


class _Once(logging.Filter):
    """Lets each message through once: sacreBLEU asks at every score whether the text is tokenised."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this message is new."""
        new = str(record.msg) not in self._seen
        self._seen.add(str(record.msg))
        return new
