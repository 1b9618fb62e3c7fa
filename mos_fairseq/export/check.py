"""Check before writing that an exported model computes the same as its origin."""

from __future__ import annotations

import math

import torch
from fairseq.models import BaseFairseqModel
from torch import Tensor, nn

from mos_fairseq.errors import InputError

_TOLERANCE = 1e-5  # relative to the largest logit: weights are kept in fp32, which rounds by 6e-8


class ExportError(RuntimeError):
    """The model to write differs from its origin: a defect of this package, not of the input."""


@torch.no_grad()
def check_same_model(made: nn.Module, origin: BaseFairseqModel, made_name: str, origin_name: str) -> None:
    """Compare logits on random sentences in double precision, where the order of summation hardly matters.

    Args:
        made, origin: dense models in eval mode over the same dictionaries; they are left unchanged. ``made`` is called
            as a fairseq model.
        made_name, origin_name: names for error messages.

    Raises:
        InputError: the logits of ``origin`` are not finite.
        ExportError: the models differ; the message says by how much.
    """
    inputs = _sentences(origin)
    ours, theirs = (_logits(model, *inputs) for model in (made, origin))
    if not hasattr(origin, "decoder"):  # outputs at padded positions have no meaning
        real = inputs[0].ne(origin.encoder.padding_idx)
        ours, theirs = ours[real], theirs[real]
    largest, difference = float(theirs.abs().max()), float((ours - theirs).abs().max())
    if not math.isfinite(largest):
        raise InputError(f"{origin_name}: its logits are {largest}; nothing is written. Has its training diverged?")
    if not difference <= _TOLERANCE * largest:  # NaN too
        raise ExportError(
            f"{made_name} does not compute what {origin_name} computes: logits of up to {largest:.3g} differ by "
            f"{difference:.3g}; nothing is written"
        )


def _sentences(model: BaseFairseqModel) -> list[Tensor]:
    """Return inputs of the model: source sentences, one of them padded, if it has an encoder, and targets if it has a
    decoder. Padding is on the right, because some models do not support it on the left."""
    generator = torch.Generator().manual_seed(1)
    inputs: list[Tensor] = []
    if hasattr(model, "encoder"):
        pad = model.encoder.padding_idx
        src = torch.randint(4, len(model.encoder.dictionary), (3, 9), generator=generator)
        src[1, -4:] = pad
        inputs += [src, src.ne(pad).sum(1)] if hasattr(model, "decoder") else [src]
    if not hasattr(model, "decoder"):
        return inputs
    return [*inputs, torch.randint(4, len(model.decoder.dictionary), (3, 7), generator=generator)]


def _logits(model: nn.Module, *inputs: Tensor) -> Tensor:
    dtype = next(model.parameters()).dtype
    try:
        return model.double()(*inputs)[0]
    finally:
        model.to(dtype)
