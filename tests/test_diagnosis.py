"""Mixing distances and gradients' cosines against independent computations."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mos_fairseq.diagnosis import diagnose, plot_diagnoses, total_variation
from mos_fairseq.errors import InputError
from mos_fairseq.predictions import Prediction
from mos_fairseq.search_space import Subnet
from tests.helpers import batch, sample_of, supernet

PAD = 1


def evaluator(**options):
    """The parts of an evaluator that `diagnose` needs, with a small supernet and two mini-batches."""
    model = supernet(share_all_embeddings=True, router_hidden_dim=9, dropout=0.3, **options).eval()
    parts = [batch(((6, 5), (4, 7)), seed=3), batch(((7, 3),), seed=4)]
    samples = [sample_of(*part) for part in parts]
    tokens = sum(sample["ntokens"] for sample in samples)
    return SimpleNamespace(model=model, prediction=Prediction(PAD), batches=samples, num_predicted=tokens)


def subnets(model) -> list[Subnet]:
    space = model.search_space
    return [space.largest(), space.smallest(), space.sample_subnet("random", 2), space.sample_subnet("random", 5)]


def test_total_variation():
    p, q = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.6, 0.1, 0.3])
    assert total_variation(p, q) == pytest.approx(0.4)
    # two rows in common, at distances 0.4 and 1
    rows_p = torch.stack([p, torch.tensor([1.0, 0, 0]), p], 1).unsqueeze(1)
    rows_q = torch.stack([q, torch.tensor([0, 0, 1.0])], 1).unsqueeze(1)
    assert total_variation(rows_p, rows_q) == total_variation(rows_q, rows_p) == pytest.approx(0.7)


@pytest.mark.parametrize("routing", ["neuron", "layer", "none"])
def test_one_pair(routing):
    """The FFN of the second encoder layer, by hand."""
    found = evaluator(mos_routing=routing, num_experts=3)
    model, pair = found.model, subnets(found.model)[::2]
    assert pair[0].encoder_layers == pair[1].encoder_layers == 3 and pair[0] != pair[1]
    rows = {row.name: row for row in diagnose(found, pair)}
    assert all(parameter.grad is None for parameter in model.parameters())
    gradients, probs = [], []
    tokens = sum(int(part["target"].ne(1).sum()) for part in found.batches)
    layer = model.encoder.layers[1]
    for subnet in pair:
        model.set_active_subnet(subnet)
        loss = 0.0
        for part in found.batches:
            logs = model(**part["net_input"])[0].log_softmax(-1).flatten(0, 1)
            loss += F.nll_loss(logs, part["target"].flatten(), ignore_index=1, reduction="sum") / tokens
        gradients.append(torch.autograd.grad(loss, [layer.fc1.weight, layer.fc2.weight]))
        probs.append(layer.mixing_probs())
    width = min(subnet.encoder_embed_dim for subnet in pair)
    ffn = min(subnet.encoder_ffn_embed_dim[1] for subnet in pair)
    cut = [(fc1[:, 0, :ffn, :width], fc2[:, 0, :width, :ffn]) for fc1, fc2 in gradients]
    first, second = (torch.cat([part.flatten() for part in parts]) for parts in cut)
    row = rows["encoder 2 ffn"]
    assert row.cosine == row.lowest_cosine == pytest.approx(F.cosine_similarity(first, second, dim=0).item(), abs=1e-5)
    assert row.conflicts == (row.cosine < 0)
    assert rows["decoder 1 attention"].mixing_distance is None and rows["decoder 1 attention"].num_experts == 1
    if routing == "none":
        assert row.mixing_distance is row.expert_distance is None
        return
    sizes = {"fc1": ffn, "fc2": width} if routing == "neuron" else {"fc1": None, "fc2": None}
    cut = [[p[name][..., :size] if size else p[name] for name, size in sizes.items()] for p in probs]
    distances = [(a - b).abs().sum(0).mean() / 2 for a, b in zip(*cut, strict=True)]
    assert row.mixing_distance == pytest.approx(sum(distances).item() / 2) and row.mixing_distance > 0.01
    experts = [w.detach().flatten(1) for w in (layer.fc1.weight, layer.fc2.weight)]
    apart = [torch.pdist(w).mean() / w.norm(dim=1).mean() for w in experts]
    assert row.expert_distance == pytest.approx(sum(apart).item() / 2, rel=1e-4)


def test_a_supernet_that_has_diverged_is_refused():
    found = evaluator(mos_routing="none")
    found.path = "x.pt"
    found.model.encoder.layers[0].fc1.weight.data.fill_(torch.nan)
    with pytest.raises(InputError, match=r"^x\.pt: its loss is nan$"):
        diagnose(found, subnets(found.model)[:1])


@pytest.mark.slow
def test_several_and_none(tmp_path):
    found = evaluator(mos_routing="neuron")
    rows = diagnose(found, subnets(found.model))
    assert [row.name for row in rows[:3]] == ["encoder 1 attention", "encoder 1 ffn", "encoder 2 attention"]
    assert len(rows) == 12
    for row in rows:
        if row.cosine is not None:
            assert -1 <= row.lowest_cosine <= row.cosine <= 1 and 0 <= row.conflicts <= 1
    # the smallest has one decoder layer: with the largest, there is no pair for the others
    ends = {row.name: row for row in diagnose(found, subnets(found.model)[:2])}
    assert ends["decoder 1 ffn"].cosine is not None and ends["decoder 2 ffn"].cosine is None
    same = diagnose(found, [found.model.search_space.largest()] * 2)
    assert all(row.cosine == pytest.approx(1) and row.conflicts == 0 for row in same)
    assert all(row.mixing_distance == 0 for row in same if row.part == "ffn")
    plot_diagnoses({"a": rows, "b": same}, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
