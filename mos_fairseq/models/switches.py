"""Switches of a caller's model that are put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def keep_active_subnet(model: nn.Module) -> Iterator[None]:
    """Whatever subnets become active meanwhile, the one that is active now is active afterwards.

    Args:
        model: a supernet, or a wrapper for data parallel training.
    """
    subnet = model.active_subnet
    try:
        yield
    finally:
        model.set_active_subnet(subnet)


@contextmanager
def without_attention(model: nn.Module) -> Iterator[None]:
    """Search with ``model`` meanwhile gets no attention, which it reads at every step: for callers that look at words
    only. fairseq's own models tell it all the same."""
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
