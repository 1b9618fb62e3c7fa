"""Run commands at the same time, or one in several processes with the variables that torchrun sets.

    python tests/at_once.py RANKS mos-search ARGS [-- mos-search ARGS]...

The outputs go to files at_once.NUMBER.RANK in the working directory.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests import processes  # noqa: E402


def main() -> None:
    ranks, words = int(sys.argv[1]), sys.argv[2:]
    processes.import_everything()
    commands = [list(part) for ends, part in groupby(words, lambda word: word == "--") if not ends]
    jobs = [
        processes.start(*command, log=Path(f"at_once.{number}"), ranks=ranks, agent=True)
        for number, command in enumerate(commands)
    ]
    statuses = [status for job in jobs for status in job.wait()]
    if any(statuses):
        sys.exit(f"ended with {statuses}:\n" + "\n".join(job.text(rank) for job in jobs for rank in range(ranks)))


if __name__ == "__main__":
    main()
