"""Diagnose a trained supernet: how differently routers mix the experts for subnets, and whether the subnets' gradients
pull shared weights in different directions. MoS (arXiv 2306.04845) is meant to relieve this conflict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import torch
from torch import Tensor, nn

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import SubnetEvaluator
from mos_fairseq.figures import new_figure, save_figure
from mos_fairseq.models.supernet import Supernet
from mos_fairseq.models.switches import keep_active_subnet
from mos_fairseq.modules import ElasticLinear
from mos_fairseq.search_space import Subnet

PARTS = ("attention", "ffn")


@dataclass(frozen=True)
class Diagnosis:
    """One part ("attention" or "ffn") of one layer.

    ``mixing_distance``: total-variation distance between the mixing weights of two subnets (0: equal, 1: no expert in
    common), mean over their common rows and over pairs of subnets. ``expert_distance``: norm of the difference of two
    experts over the norm of one, mean over pairs. Both are None without experts. ``cosine``: similarity of two
    subnets' gradients in the weights that both use, mean over pairs; ``lowest_cosine``: minimum over pairs;
    ``conflicts``: share of pairs with a negative cosine. These three are None if fewer than two subnets have the layer.
    """

    side: str
    layer: int
    part: str
    num_experts: int
    mixing_distance: float | None
    expert_distance: float | None
    cosine: float | None
    lowest_cosine: float | None
    conflicts: float | None

    @property
    def name(self) -> str:
        """Return a name such as ``encoder 2 ffn``; layers count from 1."""
        return f"{self.side} {self.layer + 1} {self.part}"


@dataclass(frozen=True)
class _Trace:
    """What one subnet does in one matrix: mixing weights ([E], [E, R] or [E, G, o], None without experts), and the
    gradient of the active part of the stacked experts [E, G, o, i]; of those of low rank, of the shared weights."""

    probs: Tensor | None
    gradient: Tensor


_Key = tuple[str, int, str, str]  # side, layer, part, name of the matrix


def diagnose(evaluator: SubnetEvaluator, subnets: Sequence[Subnet]) -> list[Diagnosis]:
    """Compare some subnets of a supernet.

    Gradients are of the mean cross-entropy per token on all of the evaluator's sentences, without dropout. The
    gradients of all subnets are in memory at once: one copy of the model's linear layers for each.

    Raises:
        InputError: the loss of a subnet is not finite.
    """
    model = evaluator.model
    if not isinstance(model, Supernet):
        raise TypeError(f"the evaluator's model is a {type(model).__name__}: only supernets can be diagnosed")
    with keep_active_subnet(model):
        traces = [_trace(evaluator, subnet) for subnet in subnets]
    keys = [key for key, _ in _matrices(model)]
    matrices = dict(_matrices(model))
    places = list(dict.fromkeys(key[:3] for key in keys))
    return [_diagnosis(place, {k: matrices[k] for k in keys if k[:3] == place}, traces) for place in places]


def _matrices(model: Supernet) -> Iterator[tuple[_Key, ElasticLinear]]:
    for side, index, layer in _layers(model):
        for part in PARTS:
            for name, module in layer.named_modules():
                if isinstance(module, ElasticLinear) and _part(name) == part and "router" not in name:
                    yield (side, index, part, name), module


def _layers(model: Supernet) -> Iterator[tuple[str, int, nn.Module]]:
    for stack in model.stacks():
        for index, layer in enumerate(stack.layers):
            yield stack.stack.name, index, layer


def _part(name: str) -> str:
    return "ffn" if name.split(".")[0] in ("fc1", "fc2") else "attention"


def _trace(evaluator: SubnetEvaluator, subnet: Subnet) -> dict[_Key, _Trace]:
    """Trace every matrix that the subnet uses."""
    model = evaluator.model
    model.set_active_subnet(subnet)
    model.requires_grad_(True).zero_grad(set_to_none=True)  # of what was frozen in training, too
    tokens = evaluator.num_predicted
    total = 0.0
    for batch in evaluator.batches:
        loss = evaluator.prediction.summed_loss(model, batch) / tokens
        loss.backward()
        total += float(loss.detach())
    if not math.isfinite(total):
        raise InputError(f"{evaluator.path}: its loss is {total}")
    with torch.no_grad():
        used = [place for place in _layers(model) if place[1] < getattr(model, place[0]).num_active_layers]
        probs = {(side, index): layer.mixing_probs() for side, index, layer in used}
    found = {}
    for key, matrix in _matrices(model):
        if key[:2] in probs:
            rows, columns = matrix.active_out_features, matrix.active_in_features
            gradient = matrix.weight.grad[:, :, :rows, :columns].clone()
            found[key] = _Trace(probs[key[:2]].get(key[3]), gradient)
    model.zero_grad(set_to_none=True)
    return found


def _diagnosis(
    place: tuple[str, int, str], matrices: Mapping[_Key, ElasticLinear], traces: Sequence[Mapping[_Key, _Trace]]
) -> Diagnosis:
    pairs = [(a, b) for a, b in combinations(traces, 2) if all(key in a and key in b for key in matrices)]
    cosines = [_cosine([(a[key].gradient, b[key].gradient) for key in matrices]) for a, b in pairs]
    mixing = [
        total_variation(a[key].probs, b[key].probs)
        for (a, b), key in product(pairs, matrices)
        if a[key].probs is not None
    ]
    experts = [_expert_distance(matrix.experts()) for matrix in matrices.values() if matrix.num_experts > 1]
    return Diagnosis(
        *place,
        num_experts=max(matrix.num_experts for matrix in matrices.values()),
        mixing_distance=_mean(mixing),
        expert_distance=_mean(experts),
        cosine=_mean(cosines),
        lowest_cosine=min(cosines, default=None),
        conflicts=_mean([float(cosine < 0) for cosine in cosines]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def total_variation(p: Tensor, q: Tensor) -> float:
    """Total-variation distance of two mixtures over E experts, [E], [E, R] or [E, G, o], mean over the rows (or
    components) that both have."""
    if p.dim() > 1:
        rows = min(p.size(-1), q.size(-1))
        p, q = p[..., :rows], q[..., :rows]
    return float((p - q).abs().sum(0).mean() / 2)


def _expert_distance(weight: Tensor) -> float:
    """Return the mean norm of the difference of two experts, over the experts' mean norm; ``weight`` is [E, …]."""
    experts = weight.flatten(1)
    distances = [float((experts[a] - experts[b]).norm()) for a, b in combinations(range(len(experts)), 2)]
    return sum(distances) / len(distances) / float(experts.norm(dim=1).mean())


def _cosine(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the cosine similarity of two subnets' gradients over several matrices, on common slices; 0 if one is 0."""
    products = torch.zeros(3, dtype=torch.float64)
    for a, b in pairs:
        rows, columns = (min(a.size(dim), b.size(dim)) for dim in (2, 3))
        a, b = (gradient[:, :, :rows, :columns].double().flatten().cpu() for gradient in (a, b))
        products += torch.stack([a @ b, a @ a, b @ b])
    norm = float((products[1] * products[2]).sqrt())
    return float(products[0]) / norm if norm else 0.0


def plot_diagnoses(found: Mapping[str, Sequence[Diagnosis]], path: Path) -> None:
    """Plot mixing distance and gradients' cosine by layer as a PNG, one line for each supernet.

    Raises:
        InputError: the file cannot be written.
    """
    names = list(dict.fromkeys(row.name for rows in found.values() for row in rows))
    figure = new_figure(max(6.0, 0.5 * len(names)), 7)
    panels = (("mixing_distance", "distance of mixing weights"), ("cosine", "cosine of gradients"))
    for number, (field, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(2, 1, number)
        for supernet, rows in found.items():
            points = [(names.index(row.name), value) for row in rows if (value := getattr(row, field)) is not None]
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", linestyle=":", label=supernet)
        axes.set(ylabel=label, xlim=(-0.5, len(names) - 0.5))
        labels = names if number == len(panels) else [""] * len(names)
        axes.set_xticks(range(len(names)), labels, rotation=60, ha="right")
        axes.axhline(0, color="0.6", linewidth=1)
        axes.legend(fontsize="small")
    save_figure(figure, path)
