"""TensorBoard shows the curves of one metric in a group; log lines and other keys stay."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fairseq.logging import metrics, progress_bar

from mos_fairseq.tasks.subnet_metrics import merge_logs, reduce_subnet_metrics


class Log:
    """In the place of the bar that prints."""

    def __init__(self) -> None:
        self.printed: list[dict] = []

    def print(self, stats: dict, tag: str | None = None, step: int | None = None) -> None:
        self.printed.append(stats)

    log = print


@pytest.fixture
def logged() -> dict:
    """What fairseq logs of a batch."""
    of_one = {"loss": 3.0, "nll_loss": 2.0, "ntokens": 4, "nsentences": 1, "sample_size": 4}
    with metrics.aggregate(new_root=True) as meters:
        reduce_subnet_metrics([merge_logs([("largest", of_one), ("scale", of_one)])])
        metrics.log_scalar("loss", 3.0)
    return {**meters.get_smoothed_values(), "num_updates": 7}


EXPECTED = {f"{name}/{subnet}" for name in ("loss", "nll_loss", "ppl") for subnet in ("largest", "scale")}
EXPECTED ^= {"loss", "loss/scale", "loss_scale"}  # the last is also that of half precision


def test_tensorboard(logged, monkeypatch, tmp_path):
    drawn = {}
    writer = SimpleNamespace(add_scalar=lambda *point: drawn.update({point[0]: point[2]}), flush=lambda: None)
    monkeypatch.setattr(progress_bar, "SummaryWriter", object)
    monkeypatch.setitem(progress_bar._tensorboard_writers, "valid", writer)
    log = Log()
    progress_bar.TensorboardProgressBarWrapper(log, str(tmp_path)).print(logged, tag="valid", step=7)
    assert drawn == dict.fromkeys(EXPECTED, 7)
    assert log.printed == [logged] and "loss_largest" in logged
