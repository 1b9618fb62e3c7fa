"""Mistakes of earlier supernets of BERT, one test each unless another file has it; and search in such spaces."""

from __future__ import annotations

import itertools

import pytest
import torch

from mos_fairseq.checkpoints import read_checkpoint
from mos_fairseq.cost import CostOptions, subnet_cost
from mos_fairseq.errors import InputError
from mos_fairseq.models import RobertaMosModel
from mos_fairseq.nas.candidates import Candidates
from mos_fairseq.nas.constraints import Constraint
from mos_fairseq.nas.evolution import EvolutionOptions, evolve
from mos_fairseq.search_space import SearchSpace, Subnet, resolve_subnet
from tests.helpers import masked_language_model
from tests.models.test_masked_language_model import sentences
from tests.spaces import BERT_SPACE, BOTTLENECK_SPACE, FACTORISED_SPACE

SPACES = {"uniform": BERT_SPACE, "factorised": FACTORISED_SPACE, "bottleneck": BOTTLENECK_SPACE}
SHAPER = SearchSpace.from_dict(
    {
        "family": "encoder_only",
        "encoder_embed_dim": [24],
        "encoder_bottleneck_dim": [24, 16, 8, 4],
        "encoder_layers": [4],
        "encoder_ffn_embed_dim": [32],
        "encoder_attention_heads": [4],
    }
)


@torch.no_grad()
def logits(model: RobertaMosModel, subnet: Subnet) -> torch.Tensor:
    model.set_active_subnet(subnet)
    return model(sentences())[0]


# --- routings ---


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_every_routing_runs_and_every_expert_learns(space):
    """Of all linears and routers' depths, in the smallest subnet too."""
    kinds = (("layer", "ffn", 1), ("neuron", "ffn", 2), ("layer", "attention", 2), ("neuron", "all", 1))
    for routing, which, depth in kinds:
        options = {"mos_routing": routing, "mos_linears": which, "router_layers": depth, "num_experts": 3}
        model = masked_language_model(SearchSpace.from_dict(SPACES[space]), **options)
        model.set_active_subnet(model.search_space.smallest())
        model(sentences())[0].square().mean().backward()
        layer = model.encoder.layers[0]
        for name, module in (("ffn", layer.fc1), ("attention", layer.self_attn.out_proj)):
            shares = module.weight.grad.flatten(1).norm(dim=1)
            assert len(shares) == (3 if which in (name, "all") else 1) and shares.gt(0).all(), (options, name)


def test_equal_probabilities_are_the_mean_of_all_experts():
    model = masked_language_model(mos_routing="layer", num_experts=3).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".router." in name:
                parameter.zero_()
    model.set_active_subnet(model.search_space.largest())
    fc1, twins = model.encoder.layers[0].fc1, model.get_active_subnet().encoder.layers[0].fc1
    torch.testing.assert_close(twins.weight.flatten(), fc1.weight.mean(0).flatten())
    torch.testing.assert_close(twins.bias.flatten(), fc1.bias.mean(0).flatten())


@pytest.mark.parametrize("encoding", ["aggregate", "per_layer"])
@pytest.mark.parametrize("routing", ["layer", "neuron"])
def test_depth_alone_changes_the_mixture(encoding, routing):
    model = masked_language_model(mos_routing=routing, arch_encoding=encoding).eval()
    found = []
    for depth in (3, 2):
        sizes = {"encoder_layers": depth, "encoder_ffn_embed_dim": [37] * depth, "encoder_attention_heads": [4] * depth}
        data = {"family": "encoder_only", "encoder_embed_dim": 24, "head_dim": 6} | sizes
        model.set_active_subnet(Subnet.from_dict(data))
        found.append(model.get_active_subnet().encoder.layers[0].fc1.weight)
    assert not torch.equal(*found)


@pytest.mark.parametrize("space", SPACES)
def test_no_forward_pass_leaves_a_trace(space):
    """No leak through routers' input or configurations: a subnet computes the same, whichever was active before."""
    model = masked_language_model(SearchSpace.from_dict(SPACES[space]), mos_routing="neuron").eval()
    subnets = [model.search_space.sample_subnet(seed) for seed in range(3)]
    before = repr(model.cfg)
    first = [logits(model, subnet) for subnet in subnets]
    again = [logits(model, subnet) for subnet in reversed(subnets)][::-1]
    assert all(map(torch.equal, first, again)) and repr(model.cfg) == before


def test_heads_that_do_not_fit_a_width_are_refused():
    data = BOTTLENECK_SPACE | {"encoder_bottleneck_dim": [24, 18], "encoder_attention_heads": [4, 2]}
    with pytest.raises(InputError, match="4 heads do not divide encoder_bottleneck_dim=18"):
        SearchSpace.from_dict(data)


# --- what is taken out ---


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_an_extracted_subnet_has_its_own_shapes_and_no_experts(space):
    """For 50 random subnets, the parameters are as counted; classification heads are included."""
    model = masked_language_model(SearchSpace.from_dict(SPACES[space]), mos_routing="neuron", num_experts=3)
    plain, options = [], CostOptions(vocab_size=31, max_positions=50)
    for seed in range(50):
        subnet = model.search_space.sample_subnet(seed)
        model.set_active_subnet(subnet)
        twin = model.get_active_subnet()
        plain.append(sum(parameter.numel() for parameter in twin.parameters()))
        assert plain[-1] == subnet_cost(subnet, options).params
        assert not [name for name in twin.state_dict() if "router" in name or "expert" in name]
    assert len(set(plain)) > 20
    model.register_classification_head("topic", num_classes=3)
    assert model.get_active_subnet().classification_heads["topic"].out_proj.out_features == 3


# --- search ---


def judged(subnet: Subnet) -> float:
    """A loss in which layers help one another, so that no layer's best size is the same in all subnets."""
    widths = subnet.encoder_bottleneck_dim
    alone = sum((24 - width) * (7, 3, 11, 5)[layer] for layer, width in enumerate(widths))
    together = sum(abs(a - b) * 4 for a, b in itertools.pairwise(widths))
    return float(alone + together)


PARAMS = {subnet: subnet_cost(subnet, CostOptions(vocab_size=31)).params for subnet in SHAPER.iterate()}


def candidates(limit: float) -> tuple[Candidates, list[str]]:
    """Return, of all 256 subnets, those of at most ``limit`` parameters; and the judged subnets."""
    seen: list[str] = []

    def evaluate(subnets: list[Subnet]) -> list[float]:
        seen.extend(subnet.key for subnet in subnets)
        return [judged(subnet) for subnet in subnets]

    def costs(subnets: list[Subnet]) -> list[dict[str, float]]:
        return [{"params": PARAMS[subnet]} for subnet in subnets]

    return Candidates(SHAPER, costs, evaluate, [Constraint("params", limit)]), seen


@pytest.mark.slow
@pytest.mark.parametrize("quantile", [0.1, 0.4, 0.8])
def test_evolution_finds_the_best_of_all(quantile):
    """With three seeds, however few subnets of a draw keep the budget; none is judged twice."""
    limit = sorted(PARAMS.values())[int(quantile * len(PARAMS))]
    best = min(judged(subnet) for subnet, params in PARAMS.items() if params <= limit)
    for seed in (1, 2, 3):
        found, seen = candidates(limit)
        winner = evolve(found, EvolutionOptions(population_size=40, parents=15, iterations=6, seed=seed))
        assert PARAMS[winner] <= limit and judged(winner) == best
        assert len(seen) == len(set(seen)) and all(PARAMS[found.seen[key]] <= limit for key in seen)


def test_a_budget_that_one_subnet_keeps_and_one_that_none_does():
    """The first generation is no single draw that may be empty."""
    cheapest = min(PARAMS.values())
    found, seen = candidates(cheapest)
    assert evolve(found, EvolutionOptions(iterations=2)) == SHAPER.smallest() and len(seen) == 1
    with pytest.raises(InputError, match="params<="):
        evolve(candidates(cheapest - 1)[0], EvolutionOptions(iterations=2))


# --- files ---


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {mark}']",
        "{{family: encoder_only, encoder_layers: !!python/object/apply:os.system ['touch {mark}']}}",
        "__import__('os').system('touch {mark}')",
        "family: encoder_only\nencoder_layers: __import__('os').system('touch {mark}')",
    ],
)
def test_no_file_of_a_subnet_is_run(tmp_path, text):
    mark, path = tmp_path / "mark", tmp_path / "subnet.yaml"
    path.write_text(text.format(mark=mark))
    with pytest.raises(InputError):
        resolve_subnet(str(path), SHAPER)
    assert not mark.exists()


class Touch:
    """Pickled, it makes a file when it is read."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return open, (self.mark, "w")


def test_no_checkpoint_is_run(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "checkpoint.pt"
    torch.save({"model": {}, "cfg": {"model": Touch(str(mark))}}, path)
    with pytest.raises(InputError):
        read_checkpoint(path)
    assert not mark.exists()
