"""``fairseq-train`` as a process that ends when the program that started it does (on Linux)."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> None:
    """Entry point: the arguments are those of ``fairseq-train``."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it died before it could tell
            return
    from fairseq.tasks.masked_lm import MaskedLMTask
    from fairseq.tasks.translation import TranslationTask
    from fairseq_cli.train import cli_main

    from mos_fairseq.tasks.masked_lm_mos import other_masks_each_epoch
    from mos_fairseq.tasks.same_batches import same_batches

    for task in (TranslationTask, MaskedLMTask):
        task.get_batch_iterator = same_batches(task.get_batch_iterator)  # a killed run goes on
    other_masks_each_epoch(MaskedLMTask)
    cli_main()
    # At once: a training that stops within an epoch leaves fairseq's thread that loads mini-batches at work, and the
    # interpreter, which ends it in the middle of torch's code, would abort the process after all is done.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
