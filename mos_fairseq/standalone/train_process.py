"""``fairseq-train`` as a process that ends with the program that started it (on Linux)."""

from __future__ import annotations

import logging
import os
import sys

from mos_fairseq.processes import end_with


def main() -> None:
    """Entry point: the arguments are those of ``fairseq-train``."""
    if not end_with(os.getppid()):
        return
    from fairseq.tasks.masked_lm import MaskedLMTask
    from fairseq.tasks.translation import TranslationTask
    from fairseq_cli.train import cli_main

    from mos_fairseq.tasks.masked_lm_mos import other_masks_each_epoch
    from mos_fairseq.tasks.same_batches import same_batches

    for task in (TranslationTask, MaskedLMTask):
        task.get_batch_iterator = same_batches(task.get_batch_iterator)  # a killed run resumes
    other_masks_each_epoch(MaskedLMTask)
    cli_main()
    # Exit at once. A training that stops within an epoch leaves fairseq's data-loading thread running. The interpreter
    # would end that thread within torch's code and abort the process, although all work is done.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
