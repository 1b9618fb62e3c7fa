"""In-place distillation, progressive shrinking, and other means against the gap, through the commands."""

from __future__ import annotations

import re

import pytest
import torch
from fairseq import checkpoint_utils

import mos_fairseq  # noqa: F401  makes checkpoints readable

from .conftest import USER_DIR, generation, training
from .test_bad_input import check

pytestmark = pytest.mark.slow

ALPHA = ["--distillation", "alpha", "--alpha-minus", -0.5, "--hidden-weight", 0.1, "--hidden-layers", "last"]
DROPOUT = ["--dropout", 0.2, "--activation-dropout", 0.2, "--dropout-scaling", "layer"]
SCHEDULE = ["--lr-scheduler", "exponential_constant", "--warmup-updates", 2, "--decay-updates", 6]
ELASTIC = ["--elastic-from", "encoder_embed_dim:2,decoder_embed_dim:2,decoder_layers:6"]


def test_training_with_distillation(commands, joined, files, tmp_path):
    """Losses of the students fall; the log describes them; the checkpoint translates."""
    options = ["--max-update", 18, "--label-smoothing", 0.1, "--amp", "--update-freq", 2]
    arguments = training(joined, tmp_path, *options, *ALPHA, space=files / "space.yaml", criterion="distillation_mos")
    done = commands.fork("train", *arguments)
    rows = done.rows("train_inner")
    for kind in ("distillation_loss", "hidden_loss"):
        assert f"{kind}_smallest" in rows[0] and f"{kind}_random" in rows[0]
        assert f"{kind}_largest" not in rows[0] and not any(kind in key for key in done.rows("valid")[-1])
    for name in ("largest", "smallest"):
        assert float(rows[-1][f"nll_loss_{name}"]) < float(rows[0][f"nll_loss_{name}"]) - 0.5
    checkpoint = tmp_path / "checkpoint_last.pt"
    generated = commands.fork("generate", *generation(joined, checkpoint, "--subnet", "smallest"))
    assert len(generated.hypotheses()) == 12
    plugin = ["--user-dir", USER_DIR, "--task", "translation_mos", "--max-tokens", 999, "--path", checkpoint]
    validated = commands.fork("validate", joined, *plugin, "--log-format", "json")
    assert "loss_smallest" in validated.out + validated.err


def test_resumed_schedules_equal_an_uninterrupted_run(commands, joined, files, tmp_path):
    """Stopped and gone on with while dimensions become elastic and the rate falls (an epoch has 6 updates)."""

    def run(folder: str, updates: int):
        options = [*ALPHA, *DROPOUT, *SCHEDULE, *ELASTIC, "--save-interval-updates", 4, "--max-update", updates]
        return commands.fork(
            "train",
            *training(joined, tmp_path / folder, *options, space=files / "space.yaml", criterion="distillation_mos"),
        )

    whole = run("whole", 11)
    (tmp_path / "parts").mkdir()
    (tmp_path / "whole" / "checkpoint_1_4.pt").rename(tmp_path / "parts" / "checkpoint_last.pt")
    parts = run("parts", 11)
    rates = {int(row["num_updates"]): float(row["lr"]) for row in whole.rows("train_inner")}
    expected = {t: 0.01 * 0.05 ** min(1, (t - 2) / 6) for t in range(2, 12)}
    assert {t: rates[t] for t in expected} == pytest.approx(expected, rel=1e-2)
    keys = ("num_updates", "lr", "loss", "gnorm")
    for mine, theirs in zip(parts.rows("train_inner"), whole.rows("train_inner")[4:], strict=True):
        assert [mine[key] for key in keys] == [theirs[key] for key in keys]
    paths = [str(tmp_path / folder / "checkpoint_last.pt") for folder in ("whole", "parts")]
    models = [checkpoint_utils.load_checkpoint_to_cpu(path)["model"] for path in paths]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    drawn = re.findall(r"update (\d+) trains largest; random: enc 2x(\d+) .* dec (\d)x(\d+)", whole.out)
    assert [int(update) for update, *_ in drawn] == list(range(1, 12))
    assert {tuple(sizes) for _, *sizes in drawn[:2]} == {("24", "2", "24")}
    assert {depth for _, _, depth, _ in drawn[2:6]} == {"2"} and {width for _, width, *_ in drawn[2:]} == {"24", "16"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--subnet-sampling", "random"], ["distillation_mos", "subnet_sampling random", "--subnet-sampling sandwich"]),
        (["--distillation-weight", 2], ["distillation_weight", "2", "from 0 to 1"]),
        (["--elastic-from", "decoder_depth:4"], ["elastic_from", "decoder_depth", "decoder_layers"]),
        (["--elastic-from", "decoder_layers:4", "--subnet-sampling", "largest"], ["elastic_from", "largest"]),
        (["--lr-scheduler", "exponential_constant"], ["decay_updates", "0", "from 1 up"]),
    ],
)
def test_bad_options(commands, joined, files, tmp_path, options, words):
    arguments = training(joined, tmp_path / "save", *options, space=files / "space.yaml", criterion="distillation_mos")
    check(commands.fork("train", *arguments, check=False), tmp_path / "save", words)


def test_stock_task_with_distillation(commands, joined, files, tmp_path):
    subnet = tmp_path / "subnet.yaml"
    subnet.write_text((files / "middle.yaml").read_text() + "qkv_dim: 16\n")
    how = {"arch": "transformer_subnet", "task": "translation", "criterion": "distillation_mos"}
    done = commands.fork("train", *training(joined, tmp_path / "save", "--subnet", subnet, **how), check=False)
    check(done, tmp_path / "save", ["distillation_mos", "--task translation_mos"])
