"""``--teacher``: a trained model teaches all subnets, through the commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .conftest import USER_DIR, training
from .test_bad_input import check

pytestmark = pytest.mark.slow

SIZES = [
    word
    for side in ("encoder", "decoder")
    for name, size in (("embed-dim", 20), ("ffn-embed-dim", 28), ("layers", 1), ("attention-heads", 2))
    for word in (f"--{side}-{name}", size)
]


def stock(commands, data: Path, folder: Path) -> Path:
    """The checkpoint of fairseq's transformer that has learnt a little, of sizes that no subnet has."""
    how = {"arch": "transformer", "task": "translation", "criterion": "label_smoothed_cross_entropy"}
    more = ["--max-update", 40, "--disable-validation", "--no-epoch-checkpoints"]
    commands.fork("train", *training(data, folder, *SIZES, *more, **how))
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def teacher(commands, joined, tmp_path_factory) -> Path:
    return stock(commands, joined, tmp_path_factory.mktemp("teacher"))


def taught(data, save_dir, teacher, files, *options) -> list[object]:
    return training(
        data, save_dir, "--teacher", teacher, *options, space=files / "space.yaml", criterion="distillation_mos"
    )


def test_a_supernet_teaches(commands, joined, files, supernet, tmp_path):
    """The student's options are the student's: the teacher was trained by another sampling."""
    options = ["--subnet-sampling", "fixed", "--subnet", "random:3", "--max-update", 2, "--disable-validation"]
    done = commands.fork("train", *taught(joined, tmp_path, supernet[0] / "checkpoint_last.pt", files, *options))
    assert float(done.rows("train_inner")[0]["distillation_loss_fixed"]) > 0


def test_all_subnets_learn_from_it(commands, joined, files, teacher, tmp_path):
    before = teacher.read_bytes()
    options = ["--subnet-sampling", "alternate", "--max-update", 40, "--label-smoothing", 0.1]
    done = commands.fork("train", *taught(joined, tmp_path / "a", teacher, files, *options))
    rows = done.rows("train_inner")
    for name, first, last in (("largest", rows[0], rows[-2]), ("random", rows[1], rows[-1])):  # in turn
        assert float(last[f"distillation_loss_{name}"]) < float(first[f"distillation_loss_{name}"]) - 0.5
    assert not any("distillation_loss" in key for key in done.rows("valid")[-1])
    assert teacher.read_bytes() == before
    state = torch.load(tmp_path / "a" / "checkpoint_last.pt", weights_only=False)
    assert state["cfg"]["criterion"]["teacher"] == str(teacher) and state.get("criterion") is None
    # validation and standalone training need no teacher
    teacher_gone = state["cfg"]["criterion"]["teacher"] = str(tmp_path / "gone.pt")
    torch.save(state, tmp_path / "moved.pt")
    plugin = ["--user-dir", USER_DIR, "--task", "translation_mos", "--max-tokens", 999, "--path", tmp_path / "moved.pt"]
    assert "loss_smallest" in commands.fork("validate", joined, *plugin, "--log-format", "json").out
    again = taught(joined, tmp_path / "b", teacher_gone, files, *options)
    check(commands.fork("train", *again, check=False), tmp_path / "b", [f"teacher is {teacher_gone}: no such file"])


def test_a_resumed_run_equals_an_uninterrupted_one(commands, joined, files, teacher, tmp_path):
    options = ["--dropout", 0.1, "--distillation", "alpha", "--distillation-weight", 0.7, "--distillation-from", 3]
    options += ["--save-interval-updates", 4, "--disable-validation"]

    def run(folder: str) -> dict:
        words = taught(joined, tmp_path / folder, teacher, files, *options, "--max-update", 8)
        commands.fork("train", *words)
        return torch.load(tmp_path / folder / "checkpoint_last.pt", weights_only=False)["model"]

    whole = run("whole")
    (tmp_path / "parts").mkdir()
    (tmp_path / "whole" / "checkpoint_1_4.pt").rename(tmp_path / "parts" / "checkpoint_last.pt")
    parts = run("parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_one_architecture_learns_from_it(commands, joined, files, teacher, tmp_path):
    """With fairseq's own task, where nothing announces the subnets."""
    subnet = tmp_path / "subnet.yaml"
    subnet.write_text((files / "middle.yaml").read_text() + "qkv_dim: 16\n")
    how = {"arch": "transformer_subnet", "task": "translation", "criterion": "distillation_mos"}
    words = ["--subnet", subnet, "--teacher", teacher, "--max-update", 30]
    done = commands.fork("train", *training(joined, tmp_path / "a", *words, **how))
    losses = [float(row["nll_loss"]) for row in done.rows("train_inner")]
    assert losses[-1] < losses[0] - 0.5
    late = training(joined, tmp_path / "b", *words, "--distillation-from", 3, **how)
    check(commands.fork("train", *late, check=False), tmp_path / "b", ["distillation_from is 3", "begins at once"])


def test_a_supernet_whose_data_are_gone_teaches(commands, joined, files, supernet, tmp_path):
    state = torch.load(supernet[0] / "checkpoint_last.pt", weights_only=False)
    state["cfg"]["task"]["data"] = str(tmp_path / "nowhere")
    torch.save(state, tmp_path / "moved.pt")
    options = ["--max-update", 1, "--no-save", "--disable-validation"]
    done = commands.fork("train", *taught(joined, tmp_path / "a", tmp_path / "moved.pt", files, *options))
    assert f"its data {tmp_path / 'nowhere'} are gone" in done.out + done.err
    assert float(done.rows("train_inner")[0]["distillation_loss_smallest"]) > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--teacher", "absent.pt"], ["teacher is absent.pt: no such file"]),
        (["--teacher", __file__], [f"{__file__}"]),
        (["--hidden-weight", 0.5], ["hidden_weight is 0.5 with teacher "]),
        (["--max-source-positions", 99], ["it takes [64, 64] positions, the training has [99, 64]"]),
    ],
)
def test_bad_options(commands, joined, files, teacher, tmp_path, options, words):
    arguments = taught(joined, tmp_path / "save", teacher, files, *options)
    check(commands.fork("train", *arguments, check=False), tmp_path / "save", words)


def test_other_dictionaries_are_refused(commands, joined, separate, files, tmp_path):
    how = {"arch": "transformer", "task": "translation", "criterion": "cross_entropy", "share": False}
    commands.fork("train", *training(separate, tmp_path / "stock", *SIZES, "--max-update", 1, **how))
    other = taught(joined, tmp_path / "save", tmp_path / "stock" / "checkpoint_last.pt", files)
    done = commands.fork("train", *other, check=False)
    check(done, tmp_path / "save", ["its source dictionary, of ", "is not the training's"])
