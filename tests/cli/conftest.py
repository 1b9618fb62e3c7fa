"""Fixtures of the end-to-end tests: a tiny corpus, and a supernet trained once."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import ROOT, USER_DIR, Commands, Done  # noqa: F401  for the tests of this folder
from tests.seeds import moved
from tests.spaces import EVEN_LM_SPACE, EVEN_SPACE

# a subnet that is neither largest nor smallest
MIDDLE = {
    "encoder_embed_dim": 24,
    "decoder_embed_dim": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_embed_dim": [32, 24],
    "encoder_attention_heads": [2, 4],
    "decoder_ffn_embed_dim": [24, 32],
    "decoder_attention_heads": [4, 2],
    "decoder_ende_attention_heads": [2, 4],
    "decoder_arbitrary_ende_attn": [1, -1],
}
HAT_NAMES = {
    "encoder_embed_dim": "encoder-embed-dim-subtransformer",
    "decoder_embed_dim": "decoder-embed-dim-subtransformer",
    "encoder_layers": "encoder-layer-num-subtransformer",
    "decoder_layers": "decoder-layer-num-subtransformer",
    "encoder_ffn_embed_dim": "encoder-ffn-embed-dim-all-subtransformer",
    "encoder_attention_heads": "encoder-self-attention-heads-all-subtransformer",
    "decoder_ffn_embed_dim": "decoder-ffn-embed-dim-all-subtransformer",
    "decoder_attention_heads": "decoder-self-attention-heads-all-subtransformer",
    "decoder_ende_attention_heads": "decoder-ende-attention-heads-all-subtransformer",
    "decoder_arbitrary_ende_attn": "decoder-arbitrary-ende-attn-all-subtransformer",
}


def same_translations(found: dict[int, list[str]], expected: dict[int, list[str]]) -> bool:
    """Whether two outputs' H lines are of the same sentences, scores and words.

    Words may differ in one sentence, if the scores do not: of two hypotheses that are as probable, rounding chooses.
    """
    scores = [{number: float(score) for number, (score, _) in lines.items()} for lines in (found, expected)]
    return scores[0] == pytest.approx(scores[1], abs=1e-3) and same_words(
        *([words for _, (_, words) in sorted(lines.items())] for lines in (found, expected))
    )


def same_words(found: list[str], expected: list[str]) -> bool:
    """Whether all sentences are equal, but for one at most: see :func:`same_translations`."""
    return sum(mine != theirs for mine, theirs in zip(found, expected, strict=True)) <= 1


@pytest.fixture
def log_level():
    """A command that runs in this process sets the root logger's level; it is as before afterwards."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


def _write_text(folder: Path) -> None:
    """Sentences of words; the translation replaces each word, the same one always."""
    draw = random.Random(5)
    for split, count in (("train", 120), ("valid", 16), ("test", 12)):
        pairs = [[f"{draw.choice('abcdefgh')}" for _ in range(draw.randint(2, 7))] for _ in range(count)]
        (folder / f"{split}.xx").write_text("".join(" ".join(words) + "\n" for words in pairs))
        (folder / f"{split}.yy").write_text("".join(" ".join(w.upper() for w in words) + "\n" for words in pairs))
    (folder / "test.xx").write_text((folder / "test.xx").read_text().replace("h", "q", 1))  # an unknown word


def _preprocess(commands: Commands, text: Path, destination: Path, *options: str) -> Path:
    paths = [x for name in ("train", "valid", "test") for x in (f"--{name}pref", text / name)]
    commands.fork("preprocess", "-s", "xx", "-t", "yy", *paths, "--destdir", destination, *options)
    return destination


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    _write_text(folder)
    return folder


@pytest.fixture(scope="session")
def joined(commands, text, tmp_path_factory) -> Path:
    """Binarised data with one dictionary for both languages."""
    return _preprocess(commands, text, tmp_path_factory.mktemp("joined") / "bin", "--joined-dictionary")


@pytest.fixture(scope="session")
def separate(commands, text, tmp_path_factory) -> Path:
    """Binarised data with a dictionary for each language."""
    return _preprocess(commands, text, tmp_path_factory.mktemp("separate") / "bin")


@pytest.fixture(scope="session")
def monolingual(commands, text, tmp_path_factory) -> Path:
    """Binarised sentences of one language."""
    folder = tmp_path_factory.mktemp("monolingual") / "bin"
    paths = [x for name in ("train", "valid", "test") for x in (f"--{name}pref", text / f"{name}.xx")]
    commands.fork("preprocess", "--only-source", *paths, "--destdir", folder)
    return folder


@pytest.fixture(scope="session")
def raw(commands, text, joined, tmp_path_factory) -> Path:
    """The sentences of `joined` as text (``--dataset-impl raw``)."""
    words = ["--dataset-impl", "raw", "--srcdict", joined / "dict.xx.txt", "--joined-dictionary"]
    return _preprocess(commands, text, tmp_path_factory.mktemp("raw") / "bin", *words)


@pytest.fixture(scope="session")
def one_answer(commands, joined, text, tmp_path_factory) -> Path:
    """Data with the same words, where every translation is A B C D E F: some dozens of updates learn that, but none or
    a single one does not."""
    folder = tmp_path_factory.mktemp("one_answer")
    for split in ("train", "valid", "test"):
        lines = (text / f"{split}.xx").read_text()
        (folder / f"{split}.xx").write_text(lines)
        (folder / f"{split}.yy").write_text("A B C D E F\n" * lines.count("\n"))
    words = [word for split in ("train", "valid", "test") for word in (f"--{split}pref", folder / split)]
    words += ["--srcdict", joined / "dict.xx.txt", "--joined-dictionary", "--destdir", folder / "bin"]
    commands.fork("preprocess", "-s", "xx", "-t", "yy", *words)
    return folder / "bin"


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """space.yaml; middle.yaml and hat.yaml, the same subnet in our keys and in HAT's."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "space.yaml").write_text(yaml.safe_dump(EVEN_SPACE))
    (folder / "other.yaml").write_text(yaml.safe_dump(EVEN_SPACE | {"encoder_ffn_embed_dim": [32, 28]}))
    (folder / "middle.yaml").write_text(yaml.safe_dump(MIDDLE))
    hat = {HAT_NAMES[key]: value for key, value in MIDDLE.items()}
    (folder / "hat.yaml").write_text(yaml.safe_dump({"arch": "ignored", **hat, "qkv-dim": 16}))
    return folder


def training(
    data: Path,
    save_dir: Path,
    *options: object,
    arch: str = "transformer_mos",
    task: str = "translation_mos",
    space: Path | str | None = None,
    criterion: str = "label_smoothed_cross_entropy_mos",
    share: bool = True,
) -> list[object]:
    """Arguments of a small training run, of a supernet by sandwich; later options win."""
    plugin = ["--user-dir", USER_DIR, "--task", task, "--arch", arch, "--criterion", criterion]
    plugin += ["--subnet-sampling", "sandwich"] if task == "translation_mos" else []
    plugin += ["--search-space", space] if space else []
    plugin += ["--share-all-embeddings"] if share else []
    sizes = ["--max-tokens", 160, "--max-source-positions", 64, "--max-target-positions", 64]
    optimizer = ["--optimizer", "adam", "--lr", 0.01, "--clip-norm", 1.0, "--max-update", 4]
    optimizer += ["--seed", moved(1)]
    log = ["--log-format", "json", "--log-interval", 1, "--no-progress-bar", "--num-workers", 0]
    return [data, *plugin, *sizes, *optimizer, *log, "--save-dir", save_dir, *options]


def trainer_of(args: list[object], tpu: bool | None = None) -> Any:
    """Make fairseq's Trainer in this process, as ``fairseq-train ARGS`` does, with its training set; ``tpu`` is False
    where ``--bf16`` would imply it."""
    from fairseq import options, tasks, utils
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.trainer import Trainer

    args = options.parse_args_and_arch(options.get_training_parser(), input_args=list(map(str, args)))
    cfg = convert_namespace_to_omegaconf(args)
    if tpu is not None:
        cfg.common.tpu = tpu
    utils.import_user_module(cfg.common)
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    task.load_dataset("train")
    return Trainer(cfg, task, model, criterion)


@pytest.fixture(scope="session")
def supernet(commands, joined, files, tmp_path_factory):
    """(save dir, log) of a supernet that has learnt a little; its search-space file is deleted afterwards."""
    save_dir = tmp_path_factory.mktemp("supernet") / "checkpoints"
    space = files / "deleted_later.yaml"
    space.write_text((files / "space.yaml").read_text())
    options = ["--max-update", 60, "--label-smoothing", 0.1, "--validate-interval", 5, "--save-interval", 5]
    bleu = ["--eval-bleu", "--eval-bleu-args", '{"beam": 2, "max_len_b": 10}']
    subnets = ["--valid-subnets", f"smallest,largest,random:7,{files / 'middle.yaml'}"]
    best = ["--best-checkpoint-metric", "bleu_smallest", "--maximize-best-checkpoint-metric"]
    done = commands.fork("train", *training(joined, save_dir, *options, *bleu, *subnets, *best, space=space))
    space.unlink()
    return save_dir, done


@pytest.fixture(scope="session")
def language_supernet(commands, monolingual, tmp_path_factory) -> Path:
    """The checkpoint of a language model's supernet that has learnt a little."""
    folder = tmp_path_factory.mktemp("language_supernet")
    (folder / "space.yaml").write_text(yaml.safe_dump(EVEN_LM_SPACE))
    plugin = ["--user-dir", USER_DIR, "--task", "language_modeling_mos", "--arch", "transformer_lm_mos"]
    plugin += ["--search-space", folder / "space.yaml", "--criterion", "cross_entropy", "--subnet-sampling", "sandwich"]
    data = ["--tokens-per-sample", 64, "--sample-break-mode", "eos", "--max-tokens", 160, "--num-workers", 0]
    optimizer = ["--optimizer", "adam", "--lr", 0.01, "--max-update", 30, "--seed", moved(1)]
    saving = ["--save-dir", folder, "--no-epoch-checkpoints", "--disable-validation", "--no-progress-bar"]
    commands.fork("train", monolingual, *plugin, "--share-decoder-input-output-embed", *data, *optimizer, *saving)
    return folder / "checkpoint_last.pt"


def spec(name: str, folder: Path) -> str:
    """Return the --subnet value of a validation subnet's name; middle.yaml is in ``folder``."""
    return {"random7": "random:7", "middle": str(folder / "middle.yaml")}.get(name, name)


def generation(data: Path, checkpoint: Path, *options: object, task: str = "translation_mos") -> list[object]:
    """Arguments of fairseq-generate or -interactive with a beam of 2; later options win."""
    plugin = ["--user-dir", USER_DIR, "--task", task, "--path", checkpoint]
    search = ["--beam", 2, "--max-len-b", 10, "--no-progress-bar"]
    return [data, *plugin, *search, *options]
