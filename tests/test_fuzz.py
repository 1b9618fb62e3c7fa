"""A short run of tests/fuzz.py."""

from __future__ import annotations

import pytest

from tests.fuzz import fuzz, kinds


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_mutated_inputs_are_read_or_refused_in_one_line(kind, tmp_path):
    examples = 15 if kind == "Hydra recipe" else 40  # Hydra takes a fifth of a second for each
    counts = fuzz(kind, examples, 1, tmp_path)
    assert counts["refused"] >= examples // 4, counts
