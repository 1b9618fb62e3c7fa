"""Repairs to fairseq's training (mos_fairseq.compat.training, .literals): each works, and is needed."""

from __future__ import annotations

import builtins
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import fairseq
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from fairseq.models.fconv import FConvModel
from fairseq.optim.amp_optimizer import AMPOptimizer
from fairseq.trainer import Trainer
from omegaconf import OmegaConf

from mos_fairseq import compat
from mos_fairseq.compat.literals import evaluate_literal
from mos_fairseq.errors import InputError


def test_second_apply_changes_nothing():
    before = checkpoint_utils.torch_persistent_save, PathManager.copy, AMPOptimizer.step, Trainer.load_checkpoint
    compat.apply()
    after = checkpoint_utils.torch_persistent_save, PathManager.copy, AMPOptimizer.step, Trainer.load_checkpoint
    assert before == after and all(hasattr(function, "_mos_fairseq_original") for function in after)


# --- checkpoints ---


@pytest.mark.parametrize("how", ["save", "copy"])
def test_a_checkpoint_is_whole_or_the_old_one(tmp_path, monkeypatch, how):
    path, other = tmp_path / "checkpoint_last.pt", tmp_path / "checkpoint1.pt"
    checkpoint_utils.torch_persistent_save({"new": torch.arange(9)}, str(other))
    path.write_text("old")
    seen = []
    replace = checkpoint_utils.os.replace

    def watched(source, target):
        seen.append((path.read_text(), Path(source).name, Path(target).name))
        replace(source, target)

    monkeypatch.setattr(checkpoint_utils.os, "replace", watched)
    if how == "save":
        checkpoint_utils.torch_persistent_save({"new": torch.arange(9)}, str(path))
    else:
        assert PathManager.copy(str(other), str(path), overwrite=True)
    assert seen == [("old", "checkpoint_last.pt.tmp", "checkpoint_last.pt")]  # written under another name until then
    assert torch.equal(torch.load(path)["new"], torch.arange(9)) and len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_told_in_one_line_and_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint_last.pt"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"checkpoint_last.pt: cannot be written \(No space left on device\)"):
        checkpoint_utils.torch_persistent_save({}, str(path))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError):  # as without the repair
        checkpoint_utils.torch_persistent_save({}, str(path))


def test_a_copy_goes_where_a_link_points_to(tmp_path):
    source, target, link = (tmp_path / name for name in ("checkpoint1.pt", "elsewhere.pt", "checkpoint_last.pt"))
    source.write_text("new"), target.write_text("old"), link.symlink_to(target)
    assert PathManager.copy(str(source), str(link), overwrite=True) == str(link)
    assert link.is_symlink() and target.read_text() == "new" and len(list(tmp_path.iterdir())) == 3


# --- mixed precision ---


@pytest.mark.parametrize(("value", "moves"), [(1.0, True), (float("nan"), False), (float("inf"), False)])
def test_amp_on_a_cpu_skips_what_is_not_finite(value, moves):
    common = {"fp16_init_scale": 128, "min_loss_scale": 1e-4}
    cfg = OmegaConf.create({"common": common, "optimizer": {"_name": "sgd", "momentum": 0.0, "weight_decay": 0.0}})
    cfg.optimizer.lr = [0.1]
    parameter = torch.nn.Parameter(torch.ones(3))
    amp = AMPOptimizer.build_optimizer(cfg, [parameter])
    parameter.grad = torch.tensor([1.0, value, 1.0])
    amp.clip_grad_norm(0.0)  # needs the next loss scale where the norm is not finite
    amp.step()
    assert torch.equal(parameter, torch.ones(3)) != moves and torch.isfinite(parameter).all()


# --- option strings ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[(512, 3)] * 2 + [(1, -1)]", [(512, 3), (512, 3), (1, -1)]),
        ("(0.9, 0.98)", (0.9, 0.98)),
        (" True", True),
        ("{'a': [1]}", {"a": [1]}),
        ("1/2 - 3", -2.5),
        ("'x'", "x"),
        ("None", None),
    ],
)
def test_literals(text, value):
    assert evaluate_literal(text) == value == builtins.eval(text.strip())


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getpid()",
        "open('x', 'w')",
        "[1] * 10**9",
        "(1).__class__",
        "x",
        "[x]",
        "lambda: 1",
        "{**{}}",
        "",
        "1 +",
        "'a' * 99999",
        "f'{1}'",
        "(" * 3000,
        "1/0",
        "[i for i in (1,)]",
        "9" * 10001,
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(InputError, match="^option value .*allowed are numbers"):
        evaluate_literal(text)


def test_what_is_no_text_is_as_before():
    with pytest.raises(TypeError):
        evaluate_literal(True)
    assert fairseq.utils.eval_bool(True, default="default") == "default"


def test_every_eval_of_fairseq_takes_literals_only():
    root = Path(fairseq.__file__).parent
    files = [file for file in root.rglob("*.py") if "examples" not in file.parts]
    users = [file for file in files if re.search(r"(?<![\w.])eval\(", file.read_text("utf-8"))]
    names = [".".join(("fairseq", *file.relative_to(root).with_suffix("").parts)) for file in users]
    assert len(names) >= 15
    assert set(names) <= set(sys.modules)  # importing the package loads them all: none comes later, with Python's eval
    assert [name for name in names if sys.modules[name].eval is not evaluate_literal] == []


def test_building_a_model_runs_nothing(tmp_path):
    """An architecture that evaluates its options, as a checkpoint could name it."""
    words = fairseq.data.Dictionary()
    task = SimpleNamespace(source_dictionary=words, target_dictionary=words)
    args = SimpleNamespace(encoder_layers=f"[(8, 3)] * int(bool(open({str(tmp_path / 'ran')!r}, 'w')))", dropout=0.0)
    args.__dict__.update(encoder_embed_dim=8, encoder_embed_path=None, max_source_positions=9)
    with pytest.raises(InputError, match="option value"):
        FConvModel.build_model(args, task)
    assert not list(tmp_path.iterdir())
