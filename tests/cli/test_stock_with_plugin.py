"""fairseq's own models give bit-equal results with and without the plugin; and with it, they also do what fairseq
alone cannot on a current numpy.

Without the plugin, torch >= 2.6 reads fairseq's checkpoints only with its safe reader turned off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import USER_DIR, Commands, Done
from tests.cli.test_train import assert_equal

UNSAFE = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
SAFE = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "0"}

TRAINING = ["--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", 0.01, "--clip-norm", 1.0, "--num-workers", 0]
TRAINING += ["--max-tokens", 160, "--log-format", "json", "--log-interval", 1, "--no-progress-bar", "--seed", 3]
EVERY = ["--required-batch-size-multiple", 1]  # of so few sentences
TRANSFORMER = ["--task", "translation", "--arch", "transformer", "--share-all-embeddings"]
TRANSFORMER += ["--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 12, "--encoder-ffn-embed-dim", 16]
TRANSFORMER += ["--encoder-attention-heads", 2, "--decoder-attention-heads", 2]
TRANSFORMER += ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", 0.1]
ROBERTA = ["--arch", "roberta_base", "--encoder-layers", 1, "--encoder-embed-dim", 12, "--encoder-ffn-embed-dim", 16]
ROBERTA += ["--encoder-attention-heads", 2, "--max-positions", 64]
MASKED_LM = ["--task", "masked_lm", "--criterion", "masked_lm", "--sample-break-mode", "complete"]
MASKED_LM += ["--tokens-per-sample", 24, *EVERY]
CLASSES = ["--task", "sentence_prediction", "--criterion", "sentence_prediction", "--num-classes", 2]
CLASSES += ["--init-token", 0, "--separator-token", 2, *EVERY]
LANGUAGE_MODEL = ["--task", "language_modeling", "--arch", "transformer_lm", "--decoder-layers", 1]
LANGUAGE_MODEL += ["--decoder-embed-dim", 12, "--decoder-ffn-embed-dim", 16, "--decoder-attention-heads", 2]
LANGUAGE_MODEL += ["--tokens-per-sample", 24]

# as fairseq's scripts/average_checkpoints.py, which is not in its wheels; and the reading of EMA weights
AVERAGE = """
import sys
import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
if sys.argv[1] == "plugin":
    import mos_fairseq
states = []
for path in sys.argv[2:4]:
    with PathManager.open(path, "rb") as file:
        states.append(torch.load(file, map_location="cpu"))
first, second = (state["model"] for state in states)
for key, value in second.items():
    first[key].add_(value).div_(2)
ema = checkpoint_utils.load_ema_from_checkpoint(sys.argv[3])["model"]
torch.save(states[0], sys.argv[4])
torch.save(ema, sys.argv[5])
"""


@dataclass
class Side:
    """fairseq with the plugin or without."""

    name: str
    commands: Commands
    folder: Path
    environment: dict[str, str]

    def run(self, command: str, data: Path, *args: object) -> Done:
        """Run ``fairseq-COMMAND`` with relative paths in this side's folder."""
        plugin = ["--user-dir", USER_DIR] if self.name == "plugin" else []
        return self.commands.fork(command, data, *plugin, *args, cwd=self.folder, **self.environment)

    def python(self, code: str, *args: object) -> None:
        done = self.commands.python("-c", code, self.name, *args, cwd=self.folder, **self.environment)
        assert done.status == 0, done.err

    def load(self, name: str) -> dict:
        return torch.load(self.folder / name, weights_only=False)


@pytest.fixture(scope="module")
def sides(commands, tmp_path_factory):
    made = []
    for name, environment in (("stock", UNSAFE), ("plugin", SAFE)):
        folder = tmp_path_factory.mktemp(name)
        made.append(Side(name, commands, folder, environment))
    return made


@pytest.fixture(scope="module")
def classes(commands, text, monolingual, tmp_path_factory) -> Path:
    """Binarised sentences, and whether each is long."""
    folder = tmp_path_factory.mktemp("classes")
    for split in ("train", "valid"):
        lines = (text / f"{split}.xx").read_text().splitlines()
        (folder / f"{split}.label").write_text("".join(f"{int(len(line) > 8)}\n" for line in lines))
    for part, source, more in (
        ("input0", text / "{}.xx", ["--srcdict", monolingual / "dict.txt"]),
        ("label", folder / "{}.label", []),
    ):
        paths = [x for name in ("train", "valid") for x in (f"--{name}pref", str(source).format(name))]
        commands.fork("preprocess", "--only-source", *paths, "--destdir", folder / "bin" / part, *more)
    return folder / "bin"


def measured(done: Done) -> list[dict]:
    """All that is logged and does not measure time or memory."""
    rows = [row for tag in ("train_inner", "train", "valid") for row in done.rows(tag)]
    timed = re.compile(r"(.*_)?(wps|ups|wpb|wall|train_wall|gb_free)$")
    return [{key: value for key, value in row.items() if not timed.match(key)} for row in rows]


def assert_same(sides: list[Side], outputs: list[Done], *checkpoints: str) -> None:
    stock, plugin = map(measured, outputs)
    assert stock == plugin
    for name in checkpoints:
        states = [side.load(name) for side in sides]
        for part in ("model", "last_optimizer_state", "criterion"):
            assert_equal(*(state[part] for state in states), f"{name}: {part}")
        for part in ("train_iterator", "val_loss", "best", "ema"):
            assert_equal(*(state["extra_state"].get(part) for state in states), f"{name}: {part}")
        assert_equal(*(state["optimizer_history"] for state in states), f"{name}: history")


def test_a_transformer(sides, joined):
    """Trained with EMA, resumed in its third epoch, validated, averaged, fine-tuned; it translates."""
    options = [*TRANSFORMER, *TRAINING, "--store-ema", "--ema-decay", 0.9, "--save-dir", "translation"]
    for epochs in (2, 3):
        outputs = [side.run("train", joined, *options, "--max-epoch", epochs) for side in sides]
        assert len(outputs[0].rows("train")) == epochs - 2 * (epochs == 3)
        assert_same(sides, outputs, "translation/checkpoint_last.pt")
    path = ["--path", "translation/checkpoint_last.pt"]
    valid = ["--task", "translation", "--max-tokens", 160, "--log-format", "json"]
    assert_same(sides, [side.run("validate", joined, *path, *valid) for side in sides])
    for side in sides:
        side.python(AVERAGE, "translation/checkpoint2.pt", "translation/checkpoint3.pt", "average.pt", "ema.pt")
    for name in ("average.pt", "ema.pt"):
        stock, plugin = (state.get("model", state) for state in (side.load(name) for side in sides))
        assert_equal(stock, plugin, name)
    generation = ["--path", "average.pt", "--beam", 2, "--max-len-b", 10]
    outputs = [side.run("generate", joined, *generation) for side in sides]
    assert outputs[0].found("P") and outputs[0].found("H") == outputs[1].found("H")
    assert outputs[0].found("P") == outputs[1].found("P")
    tuning = [*TRANSFORMER, *TRAINING, "--finetune-from-model", "translation/checkpoint_last.pt", "--save-dir", "tuned"]
    outputs = [side.run("train", joined, *tuning, "--max-update", 3) for side in sides]
    assert_same(sides, outputs, "tuned/checkpoint_last.pt")


def test_a_roberta(sides, monolingual, classes):
    """A masked language model, trained, resumed and validated, then fine-tuned to classify."""
    options = [*MASKED_LM, *ROBERTA, *TRAINING, "--save-dir", "roberta"]
    for epochs in (1, 2):
        outputs = [side.run("train", monolingual, *options, "--max-epoch", epochs) for side in sides]
        assert outputs[0].rows("train")
        assert_same(sides, outputs, "roberta/checkpoint_last.pt")
    valid = ["--path", "roberta/checkpoint_last.pt", *MASKED_LM, "--max-tokens", 160, "--log-format", "json"]
    assert_same(sides, [side.run("validate", monolingual, *valid) for side in sides])
    restored = ["--restore-file", "roberta/checkpoint_last.pt", "--reset-optimizer", "--reset-dataloader"]
    tuning = [*CLASSES, *ROBERTA, *TRAINING, *restored, "--reset-meters", "--save-dir", "classifier"]
    outputs = [side.run("train", classes, *tuning, "--max-epoch", 1) for side in sides]
    assert "valid_accuracy" in outputs[0].rows("valid")[-1]
    assert_same(sides, outputs, "classifier/checkpoint_last.pt")


def test_a_language_model(sides, monolingual):
    """Sentence by sentence (``eos``), which uses a name removed in numpy 2: fairseq alone fails."""
    _, plugin = sides
    options = [*LANGUAGE_MODEL, *TRAINING, "--save-dir", "lm"]
    plugin.run("train", monolingual, *options, "--sample-break-mode", "eos", "--max-update", 4)
    path = ["--path", "lm/checkpoint_last.pt", "--batch-size", 4, "--sample-break-mode", "eos", *EVERY]
    scored = plugin.run("eval_lm", monolingual, *path)
    assert re.search(r"Evaluated [1-9]\d+ tokens", scored.out + scored.err)
    generation = ["--task", "language_modeling", *path, "--beam", 2, "--max-len-b", 10]
    assert len(plugin.run("generate", monolingual, *generation).found("H")) == 12
