"""Contexts that change a caller's model and restore it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def keep_active_subnet(model: nn.Module) -> Iterator[None]:
    """Restore the active subnet after the context, whatever subnets become active within it.

    Args:
        model: a supernet, or its wrapper for data-parallel training.
    """
    subnet = model.active_subnet
    try:
        yield
    finally:
        model.set_active_subnet(subnet)


@contextmanager
def without_attention(model: nn.Module) -> Iterator[None]:
    """Make ``model`` return no attention to a search, which reads it at every step; for callers that need words only.
    fairseq's own models return it anyway."""
    decoder = model.decoder
    before = getattr(decoder, "need_attn", None)
    if before is None:
        yield
        return
    decoder.need_attn = False
    try:
        yield
    finally:
        decoder.need_attn = before
