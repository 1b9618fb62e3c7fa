"""Local rounds of two processes: against averaged gradients, whose copies count, and when rounds end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.distributed
from fairseq.optim import FP16Optimizer
from torch import nn

from mos_fairseq.distributed import LocalDataParallel, LocalRounds, SupernetDataParallel
from mos_fairseq.distributed.local_rounds import RoundLog
from mos_fairseq.errors import InputError

TOKENS = (5, 3)  # of a mini-batch of each process


def layers() -> nn.ModuleDict:
    """In double precision, the same in both processes."""
    torch.manual_seed(3)
    return nn.ModuleDict({name: nn.Linear(4, 3) for name in ("shared", "first", "second", "absent")}).double()


def local(average: str = "all", moments: str = "keep", updates: int = 1) -> LocalDataParallel:
    """Buckets are of a tensor each."""
    group = torch.distributed.group.WORLD
    return LocalDataParallel(layers(), group, LocalRounds(updates, average, moments), bucket_mb=1e-6)


def update(model, optimizer, rank: int, step: int, own: tuple[str, ...] | None = None, tokens=TOKENS) -> None:
    """As fairseq's trainer, of sentences of this process alone, in which its own layers act."""
    own = (("first", "second")[rank],) if own is None else own
    generator = torch.Generator().manual_seed(100 * rank + step)
    x = torch.randn(tokens[rank], 4, generator=generator, dtype=torch.float64)
    optimizer.zero_grad(set_to_none=True)
    hidden = model.module["shared"](x) + sum(model.module[name](x) for name in own)
    hidden.square().sum().backward()
    if isinstance(model, LocalDataParallel):
        model.note_tokens(tokens[rank])
    model.all_reduce_grads()
    for p in model.module.parameters():
        if p.grad is not None:
            p.grad.mul_(2 / sum(tokens))
    optimizer.step()


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.module.named_parameters()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_one_update_of_sgd_equals_averaged_gradients(both):
    def scenario(rank):
        found = []
        for model in (local(), SupernetDataParallel(layers(), torch.distributed.group.WORLD)):
            optimizer = torch.optim.SGD(model.module.parameters(), lr=0.05)
            for step in range(3):
                update(model, optimizer, rank, step)
                if isinstance(model, LocalDataParallel):
                    model.end_round(optimizer)
            found.append(weights(model))
        return found

    (mine, expected), (other, _) = both(scenario)
    assert_equal(mine, other)
    start = dict(layers().named_parameters())
    for name, value in mine.items():
        torch.testing.assert_close(value, expected[name], atol=1e-12, rtol=1e-12)
        assert torch.equal(value, start[name]) == name.startswith("absent")


def test_each_layer_is_that_of_those_who_touched_it(both):
    def scenario(rank):
        model = local("holders", updates=3)
        optimizer = torch.optim.SGD(model.module.parameters(), lr=0.05)
        for step in range(3):
            update(model, optimizer, rank, step)
        before = weights(model)
        log = model.end_round(optimizer)
        return before, weights(model), log

    (mine, averaged, log), (theirs, other, _) = both(scenario)
    assert_equal(averaged, other)
    start = dict(layers().named_parameters())
    for name, value in averaged.items():
        part = name.split(".")[0]
        if part == "shared":
            expected = (5 * mine[name] + 3 * theirs[name]) / 8
            torch.testing.assert_close(value, expected, atol=1e-12, rtol=1e-12)
        else:
            assert torch.equal(value, {"first": mine, "second": theirs, "absent": start}[part][name])
        assert torch.equal(value, start[name]) == (part == "absent")
    sizes = 3 * (4 * 3 + 3)  # of three of four layers
    assert log == RoundLog(updates=3, averaged=6, tensors=8, sent=8 * sizes + 8 * 9 + 8 * 3)


def test_tokens_are_those_of_the_updates_that_touched_it(both):
    """The first process touches ``first`` in one of three updates, the second in two."""

    def scenario(rank):
        model = local("holders")
        optimizer = torch.optim.SGD(model.module.parameters(), lr=0.05)
        for step in range(3):
            update(model, optimizer, rank, step, own=("first",) if (step == 0) == (rank == 0) else ("second",))
        before = weights(model)
        model.end_round(optimizer)
        return before, weights(model)

    (mine, averaged), (theirs, _) = both(scenario)
    for part, (ours, other) in {"first": (5 * 1, 3 * 2), "second": (5 * 2, 3 * 1), "shared": (15, 9)}.items():
        name = f"{part}.weight"
        expected = (ours * mine[name] + other * theirs[name]) / (ours + other)
        torch.testing.assert_close(averaged[name], expected, atol=1e-12, rtol=1e-12)


def test_a_process_without_sentences_neither_moves_nor_counts(both):
    """At the end of an epoch fairseq gives it an empty mini-batch, with gradients of zero."""

    def scenario(rank):
        model = local("all")
        optimizer = torch.optim.SGD(model.module.parameters(), lr=0.05, momentum=0.9)
        update(model, optimizer, rank, 0, tokens=(5, 0))
        before = weights(model)
        model.end_round(optimizer)
        return before, weights(model)

    (mine, averaged), (theirs, other) = both(scenario)
    assert_equal(theirs, {name: p.detach() for name, p in layers().named_parameters()})
    assert_equal(averaged, other)
    assert_equal(averaged, mine)


def kept(model, optimizer) -> dict[str, dict[str, torch.Tensor]]:
    names = {p: name for name, p in model.module.named_parameters()}
    states = {names[p]: {key: torch.as_tensor(v).clone() for key, v in s.items()} for p, s in optimizer.state.items()}
    return {name: state for name, state in states.items() if state}


@pytest.mark.parametrize("moments", ["average", "keep", "reset"])
def test_moments(both, moments):
    def scenario(rank):
        model = local("holders", moments)
        optimizer = torch.optim.Adam(model.module.parameters(), lr=0.01)
        for step in range(3 - rank):  # the second process has had fewer steps of it
            update(model, optimizer, rank, step)
        if rank:  # and none in this update, in which it has no sentences
            update(model, optimizer, rank, 2, tokens=(5, 0))
        before = kept(model, optimizer)
        sent = model.end_round(optimizer).sent
        after = kept(model, optimizer)
        if moments == "keep":  # for a checkpoint
            model.average_moments(optimizer)
        return before, after, kept(model, optimizer), sent

    (mine, after, final, sent), (theirs, other, other_final, _) = both(scenario)
    parameters = 8 * 45 + 8 * 9 + 8 * 3  # and what is told of tokens
    assert sent == parameters + (2 * 8 * 45 if moments == "average" else 0)
    if moments == "reset":
        assert not after and not other
    if moments == "keep":
        for found, before in ((after, mine), (other, theirs)):
            assert found.keys() == before.keys()
            for name in found:
                assert_equal(found[name], before[name])
    if moments == "average":
        torch.testing.assert_close(
            after["shared.bias"]["exp_avg"],
            (15 * mine["shared.bias"]["exp_avg"] + 6 * theirs["shared.bias"]["exp_avg"]) / 21,
            atol=1e-12,
            rtol=1e-12,
        )
        assert torch.equal(after["first.weight"]["exp_avg"], mine["first.weight"]["exp_avg"])
        assert after["shared.bias"]["step"] == 3 and after["second.weight"]["step"] == 2
    assert final.keys() == other_final.keys() and "absent.weight" not in final
    for name in final:
        assert_equal(final[name], other_final[name])


def test_what_has_no_average_is_refused(both):
    def scenario(rank):
        model = local("holders", "average")
        optimizer = torch.optim.SGD(model.module.parameters(), lr=0.05)
        update(model, optimizer, rank, 0)
        optimizer.state[model.module["shared"].weight]["rows"] = torch.zeros(3)
        with pytest.raises(InputError, match="the optimizer keeps rows, which has no average"):
            model.end_round(optimizer)

    both(scenario)


# --- the task ---


class Rounds:
    """Stands for the model in data parallel training."""

    def __init__(self) -> None:
        self.open_updates, self.ended, self.averaged = 0, [], 0

    def end_round(self, optimizer) -> RoundLog:
        self.ended.append(self.open_updates)
        self.open_updates = 0
        return RoundLog(self.ended[-1], 1, 2, 8)

    def average_moments(self, optimizer) -> int:
        self.averaged += 1
        return 4


def test_when_rounds_end(make_task, caplog):
    caplog.set_level("INFO")
    task, model = make_task(local_updates=3, local_moments="keep"), Rounds()
    assert task.trains_locally and not make_task().trains_locally
    optimizer = SimpleNamespace(step=lambda: None, optimizer=None)
    task.before_checkpoint()  # before any update
    for update_num in range(8):
        model.open_updates += 1
        task.optimizer_step(optimizer, model, update_num)
    assert model.ended == [3, 3] and model.open_updates == 2
    task.begin_valid_epoch(1, model)
    task.before_checkpoint()  # the moments, since they are kept; the round has ended
    assert model.ended == [3, 3, 2] and model.averaged == 1
    model.open_updates += 1
    task.optimizer_step(optimizer, model, 8)  # rounds are counted from the first update of all
    assert model.ended == [3, 3, 2, 1]
    assert "round of 3 updates: 1 of 2 tensors averaged; each process sent 0.000 MB" in caplog.text


def test_what_does_not_fit_is_refused(make_task, make_model, monkeypatch):
    with pytest.raises(InputError, match="local_updates is -1: allowed are whole numbers from 0"):
        make_task(local_updates=-1)
    with pytest.raises(InputError, match="local_updates is given with subnet_sampling controller"):
        make_task(local_updates=2, subnet_sampling="controller", controller_budget="flops<=70%")
    task = make_task(local_updates=2, local_average="all")
    assert make_model(task).local_rounds == LocalRounds(2, "all", "average")
    assert make_model(make_task()).local_rounds is None
    with pytest.raises(InputError, match="local_updates is 2: it has no effect in one process"):
        task.check_local_training()
    monkeypatch.setattr("mos_fairseq.tasks.local_training.data_parallel_size", lambda: 2)
    task.check_local_training()
    with pytest.raises(InputError, match="store_ema is True with local_updates 2"):
        make_task(local_updates=2, store_ema=True).check_local_training()
    with pytest.raises(InputError, match="--fp16, --bf16 or --amp"):
        task.optimizer_step(FP16Optimizer.__new__(FP16Optimizer), None, 0)
