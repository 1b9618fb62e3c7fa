"""Training few of a model's parameters: of a static twin layer norms and biases, which move a whole layer's outputs at
little cost; of a supernet its experts of low rank."""

from __future__ import annotations

from torch import nn

from mos_fairseq.errors import InputError
from mos_fairseq.modules import ROUTERS, LowRankExperts

ALL = "all"
PARTS = ("norms", "biases")


def check_parts(text: str, name: str) -> tuple[str, ...]:
    """Return the parts named in ``text``, a comma-separated list of :data:`PARTS`; empty for ``all``. Raises InputError
    for any other word; the message names the option ``name``."""
    if text == ALL:
        return ()
    parts = tuple(part.strip() for part in text.split(","))
    for part in parts:
        if part not in PARTS:
            raise InputError(f"{name} is {text}: allowed are {ALL}, or {', '.join(PARTS)} with a comma between them")
    return parts


def train_parts(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Freeze all of ``model`` except ``parts``: layer norms, or everything called ``bias``. With none, all trains."""
    if not parts:
        return
    for module in model.modules():
        is_norm = isinstance(module, nn.LayerNorm)
        for name, parameter in module.named_parameters(recurse=False):
            trains = ("norms" in parts and is_norm) or ("biases" in parts and name == "bias")
            parameter.requires_grad_(trains)


def train_experts(model: nn.Module) -> None:
    """Freeze all of a supernet but its experts of low rank and its routers. Optimizers of fairseq do not get the rest:
    it stays bit by bit what it is."""
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, (LowRankExperts, *ROUTERS)):
            module.requires_grad_(True)
