"""Which subnets an update trains, and that it trains their average."""

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mos_fairseq.cost import subnet_cost
from mos_fairseq.errors import InputError
from mos_fairseq.search_space import resolve_subnet
from mos_fairseq.tasks import subnet_sampling
from mos_fairseq.tasks.stratified_draws import StratifiedDraws
from tests.helpers import batch, sample_of, small_space

SPACE = small_space()
OPTIMIZER = SimpleNamespace(backward=lambda loss: loss.backward())
SAMPLES = [sample_of(*batch(seed=3)), sample_of(*batch(lengths=((3, 9), (5, 2)), seed=4))]


def draws(task, updates=range(20)) -> list[tuple]:
    return [tuple(task.training_subnets(update)) for update in updates]


# --- which subnets ---


@pytest.mark.parametrize(
    "earlier", [{}, {"task": None}, {"task": {"_name": "translation"}}, {"task": {"subnet_sampling": "sandwich"}}]
)
def test_going_on_as_before_warns_of_nothing(make_task, caplog, earlier):
    task = make_task(subnet_sampling="sandwich")
    task.compare_with_earlier(OmegaConf.create(earlier))
    assert not caplog.records
    task.compare_with_earlier(OmegaConf.create({"task": {"subnet_sampling": "random"}}))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("subnet_sampling is sandwich from here on, and was random until here")


def test_going_on_with_a_longer_decay_warns(make_task, caplog):
    task = make_task(subnet_sampling="decay", largest_until=30)
    for length in (30, 20):
        task.compare_with_earlier(OmegaConf.create({"task": {"subnet_sampling": "decay", "largest_until": length}}))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("largest_until is 30 from here on, and was 20 until here: give the earlier --largest-until")


def test_going_on_with_other_shards_warns(make_task, caplog):
    task = make_task(subnet_sampling="random", shard_data=True, data="a:b")
    earlier = {"subnet_sampling": "random", "shard_data": True, "data": "a:b"}
    task.compare_with_earlier(OmegaConf.create({"task": earlier}))
    assert not caplog.records
    task.compare_with_earlier(OmegaConf.create({"task": earlier | {"data": "b:a"}}))
    make_task(subnet_sampling="random", data="a:b").compare_with_earlier(OmegaConf.create({"task": earlier}))
    assert [record.getMessage() for record in caplog.records] == [
        "data is a:b from here on, and was b:a until here: the mini-batches differ",
        "shard_data is False from here on, and was True until here: the mini-batches differ",
    ]


def test_draws_are_a_function_of_seed_and_update(make_task):
    task, other_rank = make_task(), make_task()
    forwards = draws(task)
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    assert draws(other_rank, reversed(range(20))) == forwards[::-1]
    assert draws(make_task(), range(7, 20)) == forwards[7:]  # resumed
    assert draws(task) == forwards  # micro-batches of an update ask again
    assert len({subnets[1] for subnets in forwards}) > 15


def test_seed_option_changes_the_draws(make_task):
    first, second = draws(make_task(seed=1)), draws(make_task(seed=2))
    assert sum(a == b for a, b in zip(first, second, strict=True)) <= 2


def test_drawing_leaves_global_random_states_alone(make_task):
    task = make_task()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    draws(task)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize("count", [1, 3])
def test_sandwich(make_task, count):
    names, subnets = zip(*make_task(num_random_subnets=count).training_subnets(5), strict=True)
    assert names == ("largest", *["random"] * count, "smallest")
    assert (subnets[0], subnets[-1]) == (SPACE.largest(), SPACE.smallest())
    assert len(set(subnets)) == count + 2 and all(map(SPACE.contains, subnets))


def test_other_ways_of_sampling(make_task, tmp_path):
    fixed = SPACE.sample_subnet("fixed")
    fixed.save(tmp_path / "fixed.yaml")
    sampled = make_task(subnet_sampling="random", num_random_subnets=4).training_subnets(3)
    assert [name for name, _ in sampled] == ["random"] * 4 and len(dict(map(reversed, sampled))) == 4
    assert make_task(subnet_sampling="largest").training_subnets(3) == [("largest", SPACE.largest())]
    assert make_task(subnet_sampling="smallest").training_subnets(3) == [("smallest", SPACE.smallest())]
    task = make_task(subnet_sampling="fixed", subnet=str(tmp_path / "fixed.yaml"))
    assert task.training_subnets(3) == task.training_subnets(4) == [("fixed", fixed)]
    task = make_task(subnet_sampling="fixed", subnet="random:7")
    assert task.training_subnets(0) == [("fixed", resolve_subnet("random:7", SPACE))]


def test_alternate(make_task):
    """The largest, then random ones, in turn; the draws are those of random sampling at the same updates."""
    task = make_task(subnet_sampling="alternate", num_random_subnets=2)
    drawn = make_task(subnet_sampling="random", num_random_subnets=2)
    for update in range(6):
        expected = drawn.training_subnets(update) if update % 2 else [("largest", SPACE.largest())]
        assert task.training_subnets(update) == expected


def test_decay(make_task):
    """The largest's share of the updates falls linearly; the draws by cost go through their strata without a gap."""
    task = make_task(subnet_sampling="decay", largest_until=30, num_random_subnets=2)
    drawn = make_task(subnet_sampling="random", num_random_subnets=2)
    draws = [name == "random" for update in range(40) for name, _ in task.training_subnets(update)[:1]]
    for update in range(40):
        expected = drawn.training_subnets(update) if draws[update] else [("largest", SPACE.largest())]
        assert task.training_subnets(update) == expected
    for update in range(31):
        assert -30 < 30 * sum(draws[:update]) - sum(range(update)) <= 0
    assert not any(draws[:8]) and all(draws[30:]) and sum(draws[:30]) == 14
    assert make_task(subnet_sampling="decay", largest_until=1).training_subnets(1)[0][0] == "random"
    strata = {"cost_strata": 4, "num_random_subnets": 1}
    by_cost = make_task(subnet_sampling="decay", largest_until=30, **strata)
    others = make_task(subnet_sampling="random", **strata)
    found = [by_cost.training_subnets(update) for update, draw in enumerate(draws) if draw]
    assert found == [others.training_subnets(update) for update in range(24)]


def test_sandwich_with_the_smallest_now_and_then(make_task):
    task, always = make_task(smallest_interval=3), make_task()
    for update in range(7):
        expected = always.training_subnets(update)
        assert task.training_subnets(update) == (expected[:-1] if update % 3 else expected)


@pytest.mark.parametrize(("sampling", "every"), [("sandwich", 1), ("random", 1), ("alternate", 2)])
def test_each_part_of_the_range_of_costs_gets_the_same_share(make_task, sampling, every):
    """Of four draws that follow each other one falls into each quarter, whatever the sampling; the draws of every
    choice alone do not."""
    least, most = (subnet_cost(s).flops_without_output_projection for s in (SPACE.smallest(), SPACE.largest()))

    def quarters(**options) -> list[int]:
        task = make_task(subnet_sampling=sampling, num_random_subnets=2, **options)
        subnets = [s for u in range(20 * every) for name, s in task.training_subnets(u) if name == "random"]
        costs = [subnet_cost(subnet).flops_without_output_projection for subnet in subnets]
        return [min(3, int(4 * (cost - least) / (most - least))) for cost in costs]

    found = quarters(cost_strata=4)
    assert len(found) == 40 and all(sorted(found[i : i + 4]) == [0, 1, 2, 3] for i in range(0, 40, 4))
    assert len({tuple(found[i : i + 4]) for i in range(0, 40, 4)}) > 1  # in random order
    assert not all(sorted(found[i : i + 4]) == [0, 1, 2, 3] for found in [quarters()] for i in range(0, 40, 4))


def test_strata_of_ranks_are_those_of_one_process_with_as_many_subnets(make_task, monkeypatch):
    task = make_task(num_random_subnets=2, subnets_per_rank=True, cost_strata=5)
    whole = make_task(num_random_subnets=6, cost_strata=5)
    monkeypatch.setattr(subnet_sampling, "data_parallel_size", lambda: 3)
    for update in (0, 4):
        drawn = []
        for rank in range(3):
            monkeypatch.setattr(subnet_sampling, "data_parallel_rank", lambda rank=rank: rank)
            drawn += task.training_subnets(update)[1:-1]
        monkeypatch.setattr(subnet_sampling, "data_parallel_rank", lambda: 0)
        assert drawn == whole.training_subnets(update)[1:-1]


def test_a_stratum_without_subnets_gets_the_nearest_one():
    fixed = {d.key: SPACE[d.key][:1] for d in SPACE.dimensions if d.key != "decoder_layers"}
    space = small_space(**fixed)
    draws = StratifiedDraws(space, 16)  # three depths
    subnets = [draws.draw(number, "seed") for number in range(16)]
    assert {subnet.decoder_layers for subnet in subnets} == {1, 2, 3} and subnets == [
        draws.draw(number, "seed") for number in range(16)
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cost_strata": -1}, "cost_strata is -1: allowed are whole numbers from 0 up"),
        ({"smallest_interval": 0}, "smallest_interval is 0: allowed are whole numbers from 1 up"),
        ({"subnet_sampling": "alternate", "num_random_subnets": 0}, "num_random_subnets is 0"),
        ({"subnet_sampling": "decay"}, "largest_until is 0: allowed are whole numbers from 1 up"),
    ],
)
def test_bad_sampling(make_task, options, words):
    with pytest.raises(InputError, match=words):
        make_task(**options)


def test_sandwich_of_a_space_that_becomes_elastic(make_task):
    """--elastic-from: the smallest is that of the space by then; while nothing is elastic, the largest trains alone."""
    keys = [key for key, choices in SPACE.to_dict().items() if key != "qkv_dim" and len(choices) > 1]
    schedule = ",".join(f"{key}:{9 if key == 'decoder_layers' else 4}" for key in keys)
    task, resumed = make_task(elastic_from=schedule), make_task(elastic_from=schedule)
    for update in (*range(4), 3):
        assert task.training_subnets(update) == [("largest", SPACE.largest())]
    for update in range(4, 9):
        subnets = dict(task.training_subnets(update))
        assert subnets["smallest"] == small_space(decoder_layers=[3]).smallest()
        assert subnets["random"].decoder_layers == 3 and subnets["largest"] == SPACE.largest()
    assert draws(task, range(9, 20)) == draws(make_task(), range(9, 20)) == draws(resumed, range(9, 20))


def test_other_sampling_of_a_space_that_becomes_elastic(make_task):
    schedule = {"elastic_from": "encoder_embed_dim:3,decoder_layers:3:6"}
    task = make_task(subnet_sampling="random", num_random_subnets=6, **schedule)
    depths = [{subnet.decoder_layers for _, subnet in task.training_subnets(update)} for update in range(9)]
    assert set().union(*depths[:3]) == {3} and set().union(*depths[3:6]) == {3, 2} and set().union(*depths) == {3, 2, 1}
    smallest = make_task(subnet_sampling="smallest", **schedule)
    narrower = small_space(encoder_embed_dim=[20], decoder_layers=[3])
    assert smallest.training_subnets(2) == [("smallest", narrower.smallest())]
    for sampling in ("largest", "fixed"):
        task = make_task(subnet_sampling=sampling, subnet="largest", **schedule)
        with pytest.raises(InputError, match=f"elastic_from is given, but with subnet_sampling {sampling}"):
            task.training_subnets(0)


def test_ends_are_the_largest_and_the_smallest(make_task):
    subnets = dict(make_task().training_subnets(0))
    for key in ("encoder_embed_dim", "decoder_embed_dim", "encoder_layers", "decoder_layers"):
        assert getattr(subnets["largest"], key) == max(getattr(SPACE, key))
        assert getattr(subnets["smallest"], key) == min(getattr(SPACE, key))


# --- training them ---


def gradients(model) -> dict[str, torch.Tensor]:
    """Parameter name -> gradient (zero where there is none); the model's are cleared."""
    result = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return result


@pytest.mark.parametrize("routing", ["none", "layer", "neuron"])
@pytest.mark.parametrize("sampling", ["sandwich", "random"])
def test_gradient_is_the_average_over_subnets(make_task, make_model, make_criterion, routing, sampling):
    task = make_task(num_random_subnets=2, subnet_sampling=sampling)
    model, criterion = make_model(task, mos_routing=routing), make_criterion(task)
    size = sum(task.train_step(sample, model, criterion, OPTIMIZER, 6)[1] for sample in SAMPLES)
    together = {name: grad / size for name, grad in gradients(model).items()}  # as the trainer divides

    alone, subnets = {}, task.training_subnets(6)
    for _, subnet in subnets:
        model.set_active_subnet(subnet)
        model.train()
        tokens = 0
        for sample in SAMPLES:
            loss, sample_size, _ = criterion(model, sample)
            loss.backward()
            tokens += sample_size
        for name, grad in gradients(model).items():
            alone[name] = alone.get(name, 0) + grad / tokens / len(subnets)
    for name in together:  # the sums are of the same numbers in another order
        message = partial("{}: {}".format, name)
        torch.testing.assert_close(together[name], alone[name], atol=1e-5, rtol=1e-4, msg=message)


def test_loss_and_logs_of_an_update(make_task, make_model, make_criterion):
    task = make_task(num_random_subnets=2)
    model, criterion, sample = make_model(task), make_criterion(task), SAMPLES[0]
    loss, size, log = task.train_step(sample, model, criterion, OPTIMIZER, 2)
    losses = []
    for _, subnet in task.training_subnets(2):
        model.set_active_subnet(subnet)
        losses.append(criterion(model, sample)[0].item())
    assert loss.item() == pytest.approx(sum(losses) / 4) and log["loss"] == pytest.approx(sum(losses) / 4)
    assert size == 4 * sample["ntokens"]
    assert (log["ntokens"], log["nsentences"], log["sample_size"]) == (sample["ntokens"], 3, sample["ntokens"])
    expected = {"largest": losses[0], "random": (losses[1] + losses[2]) / 2, "smallest": losses[3]}
    assert {name: log[f"loss@{name}"].item() for name in expected} == pytest.approx(expected)


def test_gradient_may_be_ignored(make_task, make_model, make_criterion):
    """In an empty mini-batch, missing gradients stay missing: Adam would move a layer by a gradient of zeros."""
    task = make_task(subnet_sampling="fixed", subnet="smallest")
    model, criterion = make_model(task), make_criterion(task)
    task.train_step(SAMPLES[0], model, criterion, OPTIMIZER, 0, ignore_grad=True)
    assert all(parameter.grad is None for parameter in model.parameters())
    task.train_step(SAMPLES[0], model, criterion, OPTIMIZER, 0)
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.set_active_subnet(model.search_space.largest())
    task = make_task()
    task.train_step(SAMPLES[1], model, criterion, OPTIMIZER, 0, ignore_grad=True)
    after = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert before.keys() == after.keys() < dict(model.named_parameters()).keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_ranks_may_train_different_subnets(make_task, monkeypatch):
    """Different random ones on every rank, none twice; the ends are everyone's, and without the option so are all."""
    task, shared = make_task(num_random_subnets=2, subnets_per_rank=True), make_task(num_random_subnets=2)
    drawn, agreed = [], []
    for rank in range(3):
        monkeypatch.setattr(subnet_sampling, "data_parallel_rank", lambda rank=rank: rank)
        drawn.append(task.training_subnets(5))
        agreed.append(shared.training_subnets(5))
        assert task.training_subnets(5) == drawn[-1]  # whatever was drawn before
    assert agreed == [agreed[0]] * 3 and drawn[0] == agreed[0]  # the first rank's are those of a run alone
    names = [[name for name, _ in subnets] for subnets in drawn]
    assert names == [["largest", "random", "random", "smallest"]] * 3
    assert len({subnet for subnets in drawn for name, subnet in subnets if name == "random"}) == 6
    assert len({subnets[0] for subnets in drawn}) == len({subnets[-1] for subnets in drawn}) == 1


def test_subnets_per_rank_need_several_processes(make_task, make_model):
    task = make_task(subnets_per_rank=True)
    with pytest.raises(InputError, match="subnets_per_rank is True: it has no effect in one process"):
        task.begin_epoch(1, make_model(task))


def test_subnets_are_drawn_once_an_update(make_task, make_model, make_criterion, monkeypatch):
    """Whatever the number of mini-batches (--update-freq)."""
    task = make_task(subnet_sampling="random", cost_strata=4)
    model, criterion, drawn = make_model(task), make_criterion(task), []
    draw = task.training_subnets
    monkeypatch.setattr(task, "training_subnets", lambda update: drawn.append(update) or draw(update))
    for update in (0, 0, 1, 1, 1, 2):
        task.train_step(SAMPLES[0], model, criterion, OPTIMIZER, update)
    assert drawn == [0, 1, 2]


@pytest.mark.parametrize("sampling", ["largest", "smallest", "fixed"])
def test_subnets_per_rank_need_random_ones(make_task, sampling):
    with pytest.raises(InputError, match=f"subnets_per_rank.*{sampling}.*sandwich, alternate, random"):
        make_task(subnets_per_rank=True, subnet_sampling=sampling, subnet="largest")


def test_the_log_says_what_was_sampled(make_task, make_model, make_criterion, caplog):
    task = make_task(log_interval=2)
    model, criterion = make_model(task), make_criterion(task)
    caplog.set_level("INFO")
    caplog.clear()
    for update in (0, 0, 1, 2):
        task.train_step(SAMPLES[0], model, criterion, OPTIMIZER, update)
    lines = [record.message for record in caplog.records if "trains" in record.message]
    assert len(lines) == 2  # every second update, once whatever the number of micro-batches
    for line, update in zip(lines, (0, 2), strict=True):
        drawn = dict(task.training_subnets(update))["random"]
        assert line.startswith(f"update {update + 1} trains largest; ")
        assert f"random: {drawn.summary()}" in line and line.endswith("smallest")


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"num_experts": 3, "mos_linears": "attention", "mos_routing": "layer"}, "3 experts in 21 attention linears"),
        ({"mos_linears": "all", "encoder_learned_pos": True}, "2 experts in 33 FFN and attention linears"),
        ({"share_all_embeddings": False}, "2 experts in 12 FFN linears"),
        ({"mos_routing": "none"}, "no experts, no routers"),
    ],
)
def test_the_log_counts_parameters(make_task, make_model, caplog, options, where):
    caplog.set_level("INFO")
    model = make_model(make_task(), **options)
    (line,) = [record.message for record in caplog.records if "largest subnet alone" in record.message]
    assert line.startswith(where)
    alone = sum(p.numel() for p in model.get_active_subnet().parameters())
    assert line.endswith(f"the largest subnet alone: {alone:,}")
    if model.cfg.mos_routing != "none":
        experts = {n: p for n, p in model.named_parameters() if p.size(0) == model.cfg.num_experts and p.dim() > 2}
        counts = [sum(p.numel() for n, p in model.named_parameters() if ".router." in n)]
        counts.append(sum(p.numel() for n, p in experts.items() if ".router." not in n))
        assert f": {counts[1]:,} parameters; routers: {counts[0]:,}; " in line


# --- what a checkpoint needs ---


def test_files_named_in_training_may_vanish(make_task, tmp_path):
    file = tmp_path / "gone.yaml"
    SPACE.smallest().save(file)
    names = {"valid_subnets": f"largest,{file}", "subnet": str(file), "subnet_sampling": "fixed"}
    assert set(make_task(**names).valid_subnets) == {"largest", "gone"}
    file.unlink()
    task = make_task(**names)  # as when a checkpoint is loaded: fairseq sets up the task of its training
    with pytest.raises(InputError, match="gone.yaml.: no such file"):
        _ = task.valid_subnets


# --- numbers ---


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_loss_of_one_subnet_is_named(make_task, make_model, make_criterion, caplog, value):
    task = make_task(num_random_subnets=2)
    model, criterion = make_model(task), make_criterion(task)
    bad = task.training_subnets(7)[2][1]

    def spoiled(model, sample):
        loss, size, log = criterion(model, sample)
        return loss * value if model.active_subnet == bad else loss, size, log

    caplog.clear()
    for update in (6, 7):
        task.train_step(SAMPLES[0], model, spoiled, OPTIMIZER, update)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert lines == [f"update 8: the loss of subnet random is {value}: {bad.summary()}"]


def test_another_vocabulary_is_told(make_task, make_model):
    model = make_model(make_task())
    state = model.state_dict()
    state["encoder.embed_tokens.weight"] = state["encoder.embed_tokens.weight"][:-3]
    with pytest.raises(InputError, match="encoder has 28 words, this run's dictionary has 31"):
        model.load_state_dict(state)
