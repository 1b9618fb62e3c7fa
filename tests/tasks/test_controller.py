"""A controller in training: its draws, its learning, and the state that it does not change."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import LanguagePairDataset
from fairseq.tasks import FairseqTask

from mos_fairseq.cost import CostOptions, subnet_cost
from mos_fairseq.errors import InputError
from mos_fairseq.search_space import SearchSpace, Subnet
from mos_fairseq.tasks import answer_of
from mos_fairseq.tasks.controller import Controller
from mos_fairseq.tasks.held_out import HeldOut
from tests.helpers import batch, dictionary, sample_of, small_space

SPACE = small_space()
FEW = SearchSpace.from_dict(
    {
        "family": "decoder_only",
        "decoder_embed_dim": [28, 14],
        "decoder_layers": [3, 2, 1],
        "decoder_ffn_embed_dim": [37, 19],
        "decoder_attention_heads": [4, 2],
        "qkv_dim": 24,
    }
)
OPTIMIZER = SimpleNamespace(backward=lambda loss: loss.backward())
SAMPLE = sample_of(*batch(seed=3))
ON = {"subnet_sampling": "controller", "controller_budget": "flops<=70%", "controller_interval": 1}
COSTS = CostOptions(vocab_size=31)


def options(**changes) -> SimpleNamespace:
    names = {"budget": "flops<=70%", "from": 0, "interval": 1, "samples": 2, "uniform": 0.2}
    return SimpleNamespace(**{f"controller_{name}": value for name, value in names.items()} | {"seed": 1} | changes)


def controller(space: SearchSpace = SPACE, **changes) -> Controller:
    return Controller(space, options(**changes), COSTS)


def flops(subnet: Subnet) -> int:
    return subnet_cost(subnet, COSTS).flops


def budget(space: SearchSpace = SPACE, part: float = 0.7) -> float:
    return part * flops(space.largest())


def separable(subnet: Subnet) -> float:
    """Return a loss with a contribution of each size: width is good, layers are bad."""
    sizes = sum(sum(subnet[key]) for key in ("decoder_ffn_embed_dim", "decoder_attention_heads"))
    return 5.0 * subnet["decoder_layers"] - subnet["decoder_embed_dim"] - sizes / 100


def put_sentences(task) -> None:
    words, rows = dictionary(), [sample_of(*batch(seed=seed)) for seed in (5, 6, 7)]
    sources = [row[row != 1] for sample in rows for row in sample["net_input"]["src_tokens"]]
    targets = [row[row != 1] for sample in rows for row in sample["target"]]
    lengths = [list(map(len, side)) for side in (sources, targets)]
    task.datasets["valid"] = LanguagePairDataset(
        sources, lengths[0], words, targets, lengths[1], words, left_pad_source=True
    )


@pytest.fixture
def make_controlled(make_task, make_model, make_criterion):
    """Return task, model and criterion of a training with a controller, and its held-out set."""

    def make(rates=0.0, **changes):
        task = make_task(**ON | {"max_tokens_valid": 24, "batch_size_valid": None} | changes)
        torch.manual_seed(4)
        model = make_model(task, dropout=rates, router_dropout=rates)
        put_sentences(task)
        return task, model, make_criterion(task)

    return make


# --- draws ---


def test_it_begins_as_sandwich_and_its_uniform_share_stays_so(make_task, make_model):
    sandwich = make_task(num_random_subnets=2)
    expected = [sandwich.training_subnets(update) for update in range(30)]
    late = make_task(**ON, num_random_subnets=2, controller_from=12, controller_uniform=0.0)
    make_model(late)
    found = [late.training_subnets(update) for update in range(30)]
    assert found[:12] == expected[:12] and found[12:] != expected[12:]
    for _, *drawn, smallest in found[12:]:
        assert len(drawn) == 2 and smallest == ("smallest", SPACE.smallest())
        assert all(flops(subnet) <= budget() for _, subnet in drawn)
    uniform = make_task(**ON, num_random_subnets=2, controller_uniform=1.0)
    make_model(uniform)
    assert [uniform.training_subnets(update) for update in range(30)] == expected


def test_draws_are_a_function_of_seed_update_and_what_was_learnt():
    one, other = controller(), controller()
    found = [one.draw(update, number) for update in range(10) for number in range(2)]
    assert [other.draw(update, number) for update in reversed(range(10)) for number in (1, 0)] == found[::-1]
    assert [controller(seed=2).draw(update, 0) for update in range(10)] != found[::2]
    assert len({subnet.key for subnet in found}) > 10


def test_what_is_certain_is_always_drawn():
    learnt = controller(controller_uniform=0.0)
    certain = learnt.draw(3, 0)
    vector = learnt.candidates.genes.encode(certain)
    sizes = learnt.distribution.sizes
    learnt.distribution.theta = [np.eye(size)[index] for size, index in zip(sizes, vector, strict=True)]
    assert learnt.answer() == certain and learnt.certainty == 1
    assert {learnt.draw(update, 0).key for update in range(20)} == {certain.key}


# --- learning ---


def test_it_learns_the_best_within_the_budget():
    """The landscape is separable; nothing that is judged misses the budget, and the answer keeps it, too."""
    learnt, judged = controller(FEW), []

    def judge(subnets):
        judged.extend(subnets)
        return [separable(subnet) for subnet in subnets]

    for update in range(300):
        learnt.step(update, judge)
    kept = [subnet for subnet in FEW.iterate() if flops(subnet) <= budget(FEW)]
    assert learnt.steps == 300 and len(judged) == 600 and all(flops(s) <= budget(FEW) for s in judged)
    assert learnt.answer() in kept and separable(learnt.answer()) == min(map(separable, kept))


def test_a_step_is_due_once():
    learnt = controller(controller_from=3, controller_interval=2)
    due = []
    for update in (0, 1, 2, 3, 3, 4, 5, 5, 7):  # micro-batches ask again
        due.append(learnt.is_due(update))
        if due[-1]:
            learnt.step(update, lambda subnets: [1.0, 2.0])
    assert due == [False, False, False, True, False, False, True, False, True]


def test_what_is_not_finite_is_the_worst():
    one, other = controller(), controller()
    one.step(0, lambda subnets: [float("nan"), 2.0])
    other.step(0, lambda subnets: [3.0, 2.0])
    assert one.to_dict() == other.to_dict()


def test_it_goes_on_where_it_was():
    whole = controller(FEW)

    def steps(learnt, updates):
        for update in updates:
            learnt.step(update, lambda subnets: [separable(subnet) for subnet in subnets])
        return json.dumps(learnt.to_dict())

    middle = json.loads(steps(whole, range(20)))
    assert answer_of({"controller": middle}) == whole.answer()
    parts = controller(FEW)
    parts.load(middle)
    assert not parts.is_due(19) and parts.is_due(20)
    assert steps(parts, range(20, 40)) == steps(whole, range(20, 40))
    with pytest.raises(InputError, match="search_space: .* entries of other choices"):
        controller(SPACE).load(middle)


# --- in a task ---


@pytest.mark.slow
def test_training_is_sandwichs_where_all_draws_are_uniform(make_controlled):
    """Bit-equal, with dropout: comparing subnets does not change weights, gradients and random numbers."""
    trained = []
    for changes in ({"controller_uniform": 1.0}, {"subnet_sampling": "sandwich"}):
        task, model, criterion = make_controlled(rates=0.2, **changes)
        torch.manual_seed(8)
        for update in range(3):
            task.train_step(SAMPLE, model, criterion, OPTIMIZER, update)
        trained.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert task._controller is None
    assert len(trained[0]) == len(trained[1]) and all(map(torch.equal, *trained))


def test_it_compares_by_the_loss_on_one_batch(make_controlled, monkeypatch):
    """Both subnets are compared on the same sentences, in evaluation; the next step uses the next batch."""
    task, model, criterion = make_controlled(rates=0.5)
    seen = []
    valid_step = FairseqTask.valid_step

    def watched(self, sample, model, criterion):
        found = valid_step(self, sample, model, criterion)
        seen.append((model.active_subnet, sample["id"].tolist(), float(found[2]["nll_loss"]), model.training))
        return found

    monkeypatch.setattr(FairseqTask, "valid_step", watched)
    for update in range(2):
        task.train_step(SAMPLE, model, criterion, OPTIMIZER, update)
        task.train_step(SAMPLE, model, criterion, OPTIMIZER, update)  # another micro-batch
    assert len(seen) == 4 and not any(training for *_, training in seen)
    assert seen[0][1] == seen[1][1] != seen[2][1] == seen[3][1] and seen[0][0] != seen[1][0]
    again = controller()
    for update in range(2):
        again.step(update, lambda subnets, at=2 * update: [loss for _, _, loss, _ in seen[at : at + 2]])
    assert again.to_dict() == task.state_dict()["controller"]


def test_the_answer_has_a_name(make_controlled, make_task):
    task, model, criterion = make_controlled(valid_subnets="largest,controller")
    task.check_subnets()
    assert task.valid_subnets == {"largest": SPACE.largest(), "controller": task._controller.answer()}
    task.train_step(SAMPLE, model, criterion, OPTIMIZER, 0)
    later = make_task(subnet="controller")
    with pytest.raises(InputError, match="was not trained with --subnet-sampling controller"):
        _ = later.subnet
    with pytest.raises(InputError, match="was not trained with --subnet-sampling controller"):
        later.check_subnets()
    later.load_state_dict(task.state_dict())
    assert later.subnet == task._controller.answer() and flops(later.subnet) <= budget()


def test_a_batch_holds_what_fits(make_controlled):
    task, model, _ = make_controlled()
    held_out = HeldOut(task, "valid", model.max_positions())
    indices = sorted(int(index) for indices in held_out._batches for index in indices)
    assert indices == list(range(9)) and len(held_out._batches) > 1
    task.cfg.max_tokens_valid = 6
    kept = {int(i) for indices in HeldOut(task, "valid", model.max_positions())._batches for i in indices}
    assert kept == {i for i in range(9) if task.datasets["valid"].num_tokens(i) <= 6}
    task.cfg.train_subset = "valid"
    with pytest.raises(InputError, match="controller_subset is valid: subnets train on this set"):
        HeldOut(task, "valid", model.max_positions())
    task.cfg.train_subset = "train"
    task.cfg.max_tokens_valid = 2
    with pytest.raises(InputError, match="controller_subset is valid: none of its 9 examples fits"):
        HeldOut(task, "valid", model.max_positions())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controller_budget": None}, "no budget is given: add one, as in --controller-budget 'flops<=60%'"),
        ({"controller_budget": "flops=5"}, "constraint 'flops=5': allowed is"),
        ({"controller_budget": "latency_ms<=5"}, "controller_budget is latency_ms<=5: allowed in training are params,"),
        ({"controller_uniform": 1.5}, "controller_uniform is 1.5: allowed are numbers from 0 to 1"),
        ({"controller_samples": 1}, "controller_samples is 1"),
        ({"controller_interval": 0}, "controller_interval is 0"),
        ({"controller_from": -1}, "controller_from is -1"),
    ],
)
def test_bad_options(make_task, changes, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        make_task(**ON | changes)


def test_what_cannot_be(make_task, make_model):
    with pytest.raises(InputError, match="constraint flops<=5: no subnet keeps it"):
        make_model(make_task(**ON | {"controller_budget": "flops<=5"}))
    with pytest.raises(InputError, match="controller_from is 3: by then, not every size is elastic"):
        _ = make_task(**ON, controller_from=3, elastic_from="decoder_layers:2:4").elastic_schedule
    assert make_task(**ON, controller_from=4, elastic_from="decoder_layers:2:4").elastic_schedule is not None
