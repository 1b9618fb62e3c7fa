"""Foreign files run no code, in any command that reads them; odd names work."""

from __future__ import annotations

import os

import pytest
import torch

import mos_fairseq  # noqa: F401  makes checkpoints readable
from mos_fairseq.checkpoints import read_supernet

from .conftest import USER_DIR, generation, same_translations, training


class Payload:
    """Pickles to a call of os.mkdir, which a full unpickling makes."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def hostile(supernet, tmp_path_factory):
    """Return (checkpoint with a payload beside a good supernet's content, file that the payload would make)."""
    folder = tmp_path_factory.mktemp("hostile")
    state = torch.load(supernet[0] / "checkpoint_last.pt")
    state["extra_state"]["more"] = Payload(folder / "ran")
    torch.save(state, folder / "checkpoint_last.pt")
    return folder / "checkpoint_last.pt", folder / "ran"


@pytest.mark.parametrize("command", ["resume", "finetune", "generate", "interactive", "validate", "export", "search"])
def test_a_payload_does_not_run(commands, joined, files, hostile, tmp_path, command):
    path, ran = hostile
    validate = [joined, "--user-dir", USER_DIR, "--task", "translation_mos", "--max-tokens", 999, "--path", path]
    space = {"space": files / "space.yaml"}
    name, arguments = {
        "resume": ("train", training(joined, path.parent, "--max-update", 99, **space)),
        "finetune": ("train", training(joined, tmp_path / "save", "--finetune-from-model", path, **space)),
        "generate": ("generate", generation(joined, path)),
        "interactive": ("interactive", generation(joined, path)),
        "validate": ("validate", validate),
        "export": ("mos-export", ["--path", path, "--subnet", "largest", "--output", tmp_path / "out.pt"]),
        "search": ("mos-search", [joined, "--path", path, "--output", tmp_path / "out"]),
    }[command]
    message = commands.fork(name, *arguments, check=False).error()
    assert str(path) in message and "posix.mkdir" in message
    assert not ran.exists()


def test_an_architecture_that_evaluates_its_options_runs_nothing(commands, joined, supernet, tmp_path):
    """fconv's layers are Python source, as fairseq sees it."""
    state = torch.load(supernet[0] / "checkpoint_last.pt")
    layers = f"[(8, 3)] * len([__import__('os').mkdir({str(tmp_path / 'ran')!r})])"
    state["cfg"]["model"] = {"_name": "fconv", "arch": "fconv", "encoder_layers": layers, "encoder_embed_dim": 8}
    state["cfg"]["model"] |= {"encoder_embed_path": None, "dropout": 0.0, "max_source_positions": 9}
    state["cfg"]["task"]["_name"] = "translation"
    path = tmp_path / "fconv.pt"
    torch.save(state, path)
    for name, arguments in (
        ("generate", generation(joined, path, task="translation")),
        ("mos-export", ["--path", path, "--subnet", "largest", "--output", tmp_path / "out.pt"]),
        ("mos-search", [joined, "--path", path, "--output", tmp_path / "out"]),
    ):
        done = commands.fork(name, *arguments, check=False)
        message = done.error()
        assert "option value" in message if name == "generate" else "arch is fconv" in message
        assert not (tmp_path / "ran").exists()


def test_another_task_in_a_supernets_checkpoint_is_refused(commands, joined, supernet, tmp_path):
    state = torch.load(supernet[0] / "checkpoint_last.pt")
    state["cfg"]["task"] = {"_name": "language_modeling", "data": str(tmp_path)}
    torch.save(state, tmp_path / "odd.pt")
    done = commands.fork("mos-search", joined, "--path", tmp_path / "odd.pt", "--output", tmp_path / "out", check=False)
    assert "odd.pt: its task is language_modeling" in done.error()
    with pytest.raises(ValueError, match="its task is language_modeling"):
        read_supernet(tmp_path / "odd.pt")


@pytest.mark.slow
def test_names_with_spaces_and_other_letters(commands, joined, files, tmp_path):
    folder = tmp_path / "Übung – 訓練 a'b"
    folder.mkdir()
    (folder / "mein raum.yaml").write_text((files / "space.yaml").read_text())
    data = folder / "data bin"
    data.symlink_to(joined)
    subnets = f"largest,{folder / 'kleines ß.yaml'}"
    (folder / "kleines ß.yaml").write_text((files / "middle.yaml").read_text())
    save_dir = folder / "save dir"
    options = ["--max-update", 2, "--valid-subnets", subnets]
    commands.fork("train", *training(data, save_dir, *options, space=folder / "mein raum.yaml"))
    path = save_dir / "checkpoint_last.pt"
    wanted = commands.fork("generate", *generation(data, path, "--subnet", folder / "kleines ß.yaml"))
    export = ["--path", path, "--subnet", folder / "kleines ß.yaml", "--output", folder / "ein modell.pt"]
    commands.fork("mos-export", *export)
    exported = folder / "ein modell.pt"
    more = ["--required-batch-size-multiple", 1]
    found = commands.fork("generate", *generation(data, exported, *more, task="translation"))
    assert same_translations(found.found("H"), wanted.found("H"))
    small = ["--population-size", 6, "--parents", 2, "--mutations", 2, "--crossovers", 2, "--iterations", 1]
    commands.fork("mos-search", data, "--path", path, "--output", folder / "such ergebnis", *small)
    assert (folder / "such ergebnis" / "front.html").exists()
