"""One place that sets the seeds of all toy models and trainings: MOS_TEST_SEED, 0 by default.

Every assertion must hold for other random weights, too.
"""

from __future__ import annotations

import os

_BY = int(os.environ.get("MOS_TEST_SEED", "0"))


def moved(number: int) -> int:
    """The seed to use where a test asks for ``number``; none that is moved meets another of a test's."""
    return number + 1000 * _BY
