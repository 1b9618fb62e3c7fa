"""TensorBoard and W&B show the curves of one metric in a group; other names, log lines and other keys stay."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fairseq.logging import metrics, progress_bar

from mos_fairseq.tasks.curves import group_curves
from mos_fairseq.tasks.subnet_metrics import merge_logs, reduce_subnet_metrics


class Log:
    """In the place of the bar that prints."""

    def __init__(self) -> None:
        self.printed: list[dict] = []

    def print(self, stats: dict, tag: str | None = None, step: int | None = None) -> None:
        self.printed.append(stats)

    log = print


@pytest.fixture
def logged(make_task) -> dict:
    """What fairseq logs of a batch, with keys that only look like a subnet's metric."""
    make_task()
    of_one = {"loss": 3.0, "nll_loss": 2.0, "ntokens": 4, "nsentences": 1, "sample_size": 4}
    with metrics.aggregate(new_root=True) as meters:
        reduce_subnet_metrics([merge_logs([("largest", of_one), ("no_one", of_one)])])
        metrics.log_scalar("loss_scale", 128.0)
        metrics.log_scalar("loss", 3.0)
    return {**meters.get_smoothed_values(), "num_updates": 7}


EXPECTED = {f"{name}/{subnet}" for name in ("loss", "nll_loss", "ppl") for subnet in ("largest", "no_one")}
EXPECTED |= {"loss", "loss_scale"}


def test_tensorboard(logged, monkeypatch, tmp_path):
    drawn = {}
    writer = SimpleNamespace(add_scalar=lambda *point: drawn.update({point[0]: point[2]}), flush=lambda: None)
    monkeypatch.setattr(progress_bar, "SummaryWriter", object)
    monkeypatch.setitem(progress_bar._tensorboard_writers, "valid", writer)
    log = Log()
    progress_bar.TensorboardProgressBarWrapper(log, str(tmp_path)).print(logged, tag="valid", step=7)
    assert drawn == dict.fromkeys(EXPECTED, 7)
    assert log.printed == [logged] and "loss_largest" in logged


def test_wandb(logged, monkeypatch):
    drawn = {}
    wandb = SimpleNamespace(init=lambda **options: None, log=lambda point, step: drawn.update(point))
    monkeypatch.setattr(progress_bar, "wandb", wandb)
    log = Log()
    progress_bar.WandBProgressBarWrapper(log, "project").log(logged, tag="valid")
    assert set(drawn) == {f"valid/{name}" for name in EXPECTED} and log.printed == [logged]


def test_a_second_call_changes_nothing():
    group_curves()
    before = progress_bar.TensorboardProgressBarWrapper._log_to_tensorboard
    group_curves()
    assert progress_bar.TensorboardProgressBarWrapper._log_to_tensorboard is before
