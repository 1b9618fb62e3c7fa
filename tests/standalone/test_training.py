"""What is kept of a standalone training: neither less nor more than its number of updates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mos_fairseq.errors import InputError
from mos_fairseq.standalone import training
from mos_fairseq.standalone.recipe import check_words
from mos_fairseq.standalone.training import Training, train_all


def trained(root: Path, updates: int) -> Training:
    """A training of 3 updates, whose last checkpoint has ``updates``."""
    found = Training(root, {}, ("data",), 3)
    found.checkpoint.parent.mkdir(parents=True)
    history = [{"num_updates": updates, "optimizer_name": "", "lr_scheduler_state": {}}]
    rest = {"args": None, "cfg": None, "extra_state": {"train_iterator": {"epoch": 1}}, "task_state": {}}
    torch.save({"model": {}, "optimizer_history": history} | rest, found.checkpoint)
    return found


def test_a_run_killed_before_its_last_copy_needs_no_process(tmp_path, monkeypatch):
    """fairseq, resumed at --max-update, would train one more update."""
    monkeypatch.setattr(training, "subprocess", None)
    done = trained(tmp_path, 3)
    assert list(train_all([done], 1, 1)) == [0]
    assert done.result.read_bytes() == done.checkpoint.read_bytes()
    done.result.unlink()
    with pytest.raises(InputError, match="it has trained for 3 updates, past 2: remove it"):
        list(train_all([Training(tmp_path, {}, ("data",), 2)], 1, 1))


def test_a_training_that_ended_early_is_no_result(tmp_path):
    early = trained(tmp_path, 2)
    with pytest.raises(InputError, match=r"fairseq-train has ended after 2 of 3 updates \(log: train\.log there\)"):
        early.keep_result()
    assert not early.result.exists()


@pytest.mark.parametrize("option", ["--max-epoch", "--stop-time-hours=1", "--stop-min-lr", "--max-update", "-a"])
def test_what_ends_a_training_otherwise_is_refused(option):
    with pytest.raises(InputError, match=f"^{option.partition('=')[0]} cannot be given after --: mos-x sets it"):
        check_words("mos-x", ["--seed", "1", option, "1"])
