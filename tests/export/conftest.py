"""Shared parts of the tests of exports to Hugging Face's transformers."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(scope="module")
def transformers():
    """The package, kept from importing fairseq's torchaudio, whose version does not fit torch's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", None)
        import transformers

        yield transformers
