"""A checkpoint knows its words: data whose dictionary has others, or another order, are refused wherever it is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from tests.spaces import EVEN_LM_SPACE

from .conftest import USER_DIR, generation, training


def other_words(data: Path, folder: Path, change: Callable[[list[str]], list[str]]) -> Path:
    """A copy of a data folder in which ``change`` gives the lines of each dictionary."""
    shutil.copytree(data, folder)
    for dictionary in folder.glob("dict*.txt"):
        dictionary.write_text("".join(change(dictionary.read_text().splitlines(keepends=True))))
    return folder


def swapped(lines: list[str]) -> list[str]:
    return [lines[1], lines[0], *lines[2:]]


def test_another_order_is_refused(commands, joined, supernet, files, tmp_path):
    path = supernet[0] / "checkpoint_last.pt"
    other = other_words(joined, tmp_path / "other", swapped)
    size = len((joined / "dict.xx.txt").read_text().splitlines()) + 4  # and fairseq's symbols
    told = f"data is {other}: its source dictionary of {size} words is not the checkpoint's: "
    order = told + "other words, or another order"
    assert commands.fork("generate", *generation(other, path), check=False).error() == order
    search = ["--path", path, "--output", tmp_path / "search"]
    assert commands.fork("mos-search", other, *search, check=False).error() == order
    assert not (tmp_path / "search").exists()
    (tmp_path / "save").mkdir()
    shutil.copy(path, tmp_path / "save")
    resumed = training(other, tmp_path / "save", "--max-update", 99, space=files / "space.yaml")
    assert commands.fork("train", *resumed, check=False).error() == order
    # as another training's start it is taken, with a warning
    resets = [f"--reset-{what}" for what in ("optimizer", "dataloader", "meters", "lr-scheduler")]
    once = ["--max-update", 1, "--disable-validation", "--no-save"]
    assert order in commands.fork("train", *resumed, *once, *resets).out
    started = training(other, tmp_path / "new", *once, "--finetune-from-model", path, space=files / "space.yaml")
    assert order in commands.fork("train", *started).out
    started[0] = joined
    assert "not the checkpoint's" not in commands.fork("train", *started).out

    longer = other_words(joined, tmp_path / "longer", lambda lines: [*lines, "zz 1\n"])
    message = commands.fork("generate", *generation(longer, path), check=False).error()
    assert message == told.replace(str(other), str(longer)).replace(f"{size} words", f"{size + 1} words") + (
        f"that has {size}"
    )


def test_counts_do_not_matter_and_older_checkpoints_do_not_tell(commands, joined, supernet, tmp_path):
    path = supernet[0] / "checkpoint_last.pt"
    counted = other_words(joined, tmp_path / "counted", lambda lines: [line.split()[0] + " 7\n" for line in lines])
    expected = commands.fork("generate", *generation(joined, path)).hypotheses()
    assert commands.fork("generate", *generation(counted, path)).hypotheses() == expected
    state = torch.load(path, weights_only=False)
    assert set(state["task_state"].pop("words")) == {"source", "target"}
    torch.save(state, tmp_path / "older.pt")
    other = other_words(joined, tmp_path / "other", swapped)
    assert len(commands.fork("generate", *generation(other, tmp_path / "older.pt")).hypotheses()) == len(expected)


def test_of_language_models(commands, monolingual, tmp_path):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(EVEN_LM_SPACE))
    words = ["--arch", "transformer_lm_mos", "--search-space", tmp_path / "space.yaml", "--tokens-per-sample", 16]
    words += ["--optimizer", "adam", "--lr", 0.01, "--max-tokens", 64, "--max-update", 1, "--num-workers", 0]
    task = ["--user-dir", USER_DIR, "--task", "language_modeling_mos", "--no-progress-bar"]
    commands.fork("train", monolingual, *task, *words, "--disable-validation", "--save-dir", tmp_path / "save")
    path = ["--path", tmp_path / "save" / "checkpoint_last.pt", "--max-tokens", 64, "--num-workers", 0]
    commands.fork("validate", monolingual, *task, *path)
    other = other_words(monolingual, tmp_path / "other", swapped)
    message = commands.fork("validate", other, *task, *path, check=False).error()
    assert message.startswith(f"data is {other}: its source dictionary of ") and message.endswith("another order")
