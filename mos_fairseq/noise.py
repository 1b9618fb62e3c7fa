"""Filter third-party messages that recur in fairseq's and our commands and that users cannot act on.

Only commands filter: a program that imports the package keeps its own filters and loggers.
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
_NEEDS_TENSORBOARD = "fairseq.tasks.text_to_speech"  # suggests to install tensorboardX when fairseq is imported


def leave_out_known() -> None:
    """Filter known third-party messages unless MOS_FAIRSEQ_VERBOSE=1; a second call changes nothing.

    The user's own warning filters (``PYTHONWARNINGS``, ``-W``) take precedence.
    """
    if os.environ.get(VERBOSE, "0") not in ("", "0"):
        return
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message, append=True)
    logging.getLogger(_NEEDS_TENSORBOARD).setLevel(logging.WARNING)
    root, wanted = logging.getLogger(), os.environ.get("LOGLEVEL", "INFO").upper()
    if root.level == logging.DEBUG != logging.getLevelName(wanted):  # another module of fairseq set it
        root.setLevel(logging.INFO)
    sacrebleu = logging.getLogger("sacrebleu")
    if not any(isinstance(known, _Once) for known in sacrebleu.filters):
        sacrebleu.addFilter(_Once())


class _Once(logging.Filter):
    """Let each message through once: sacreBLEU warns about tokenised text at every score."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether this message is new."""
        new = str(record.msg) not in self._seen
        self._seen.add(str(record.msg))
        return new
