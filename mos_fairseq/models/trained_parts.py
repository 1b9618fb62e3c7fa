"""Training few of a model's parameters: layer norms and biases, which move a whole layer's outputs at little cost."""

from __future__ import annotations

from torch import nn

from mos_fairseq.errors import InputError

ALL = "all"
PARTS = ("norms", "biases")


def check_parts(text: str, name: str) -> tuple[str, ...]:
    """The parts that ``text`` names, of :data:`PARTS` with commas between them; none for ``all``. Raises InputError for
    another word, which names the option ``name``."""
    if text == ALL:
        return ()
    parts = tuple(part.strip() for part in text.split(","))
    for part in parts:
        if part not in PARTS:
            raise InputError(f"{name} is {text}: allowed are {ALL}, or {', '.join(PARTS)} with a comma between them")
    return parts


def train_parts(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Freeze all of ``model`` but ``parts``: layer norms; everything that is called ``bias``. Of none, all trains."""
    if not parts:
        return
    for module in model.modules():
        is_norm = isinstance(module, nn.LayerNorm)
        for name, parameter in module.named_parameters(recurse=False):
            trains = ("norms" in parts and is_norm) or ("biases" in parts and name == "bias")
            parameter.requires_grad_(trains)
