"""What tests of exports to Hugging Face's transformers share."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(scope="module")
def transformers():
    """The package, which would import the torchaudio of fairseq, whose version is not that of torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", None)
        import transformers

        yield transformers
