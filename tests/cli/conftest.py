"""Fixtures of the end-to-end tests: a tiny corpus, a supernet trained once, and fairseq's commands."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import composition
from tests.seeds import moved

ROOT = Path(__file__).resolve().parents[2]
USER_DIR = str(ROOT / "mos_fairseq")

SPACE = {
    "encoder_embed_dim": [24, 16],
    "decoder_embed_dim": [24, 16],
    "encoder_layers": [2],
    "decoder_layers": [2, 1],
    "encoder_ffn_embed_dim": [32, 24],
    "encoder_attention_heads": [4, 2],
    "decoder_ffn_embed_dim": [32, 24],
    "decoder_attention_heads": [4, 2],
    "decoder_ende_attention_heads": [4, 2],
    "decoder_arbitrary_ende_attn": [-1, 1],
    "qkv_dim": 16,
}
LM_SPACE = {
    "family": "decoder_only",
    "decoder_embed_dim": [24, 16],
    "decoder_layers": [2, 1],
    "decoder_ffn_embed_dim": [32, 24],
    "decoder_attention_heads": [4, 2],
    "qkv_dim": 16,
}
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


@dataclass
class Done:
    """A finished command."""

    status: int
    out: str
    err: str

    def hypotheses(self) -> dict[int, str]:
        """Sentence number -> best hypothesis, from generate's or interactive's output."""
        return {number: text for number, (_, text) in self.found("H").items()}

    def found(self, letter: str) -> dict[int, list[str]]:
        """Sentence number -> fields of the lines that begin with the letter (H: score and hypothesis, ...)."""
        lines = (line.split("\t") for line in self.out.splitlines() if line.startswith(f"{letter}-"))
        return {int(name[2:]): fields for name, *fields in lines}

    def rows(self, tag: str) -> list[dict]:
        """The log's JSON rows of "train", "train_inner" or "valid", in order."""
        lines = (line.split(f"| {tag} | ", 1) for line in self.out.splitlines())
        return [json.loads(parts[1]) for parts in lines if len(parts) == 2]

    def error(self) -> str:
        """The one line that a user sees of a mistake."""
        assert self.status not in (0, None), self.out[-2000:]
        assert "Traceback" not in self.err + self.out, self.err[-3000:]
        lines = [line for line in self.err.splitlines() if not line.startswith(("INFO:", "DEBUG:"))]
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err[-3000:]
        return lines[0].removeprefix("error: ")


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


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}


def _cuda() -> str:
    """Set the GPUs that this process sees, as in CUDA_VISIBLE_DEVICES; "pretended" for a simulated one.

    Only tests of tests/gpu get a real GPU: the others count host waits, and run everywhere.
    """
    if "tests/gpu" not in os.environ.get("PYTEST_CURRENT_TEST", "") or not _has_gpu():
        return "pretended"
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0")


def _has_gpu() -> bool:
    import torch

    return os.environ.get("MOS_TEST_CUDA") != "pretended" and torch.cuda.is_available()


class Commands:
    """fairseq's commands: ``fork`` for most tests, ``spawn`` for a real console script."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.count = folder, 0
        server = [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(folder)]
        self.server = subprocess.Popen(
            server,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment() | environment,
            cwd=folder,
        )
        assert self.server.stdout.readline() == "ready\n"

    def fork(self, command: str, *args: object, check: bool = True, **how: Any) -> Done:
        """``fairseq-COMMAND ARGS`` in a fork of a process that has imported fairseq; ``how`` as for ``start``.

        ``python SCRIPT ARGS`` is the script in such a fork, and ``mos-NAME`` our command.
        """
        done = self.start(command, *args, **how).wait()
        assert not check or done.status == 0, f"{done.err[-3000:]}\n{done.out[-1000:]}"
        return done

    def start(
        self,
        command: str,
        *args: object,
        cwd: Path | None = None,
        stdin: str = "",
        threads: int | None = None,
        cuda: bool = False,
    ) -> Running:
        """Start the same command without waiting for it. ``threads``: torch's threads (default: the environment's);
        ``cuda``: on a GPU, see :func:`_cuda`."""
        self.count += 1
        files = {name: str(self.folder / f"{self.count}.{name}") for name in ("stdin", "stdout", "stderr")}
        Path(files["stdin"]).write_text(stdin, encoding="utf-8")
        request = {"command": command, "args": [str(a) for a in args], "cwd": str(cwd or self.folder), **files}
        request |= {"threads": threads, "cuda": _cuda() if cuda else None}
        request["plugin"] = command == "python" or command.startswith("mos-") or any(USER_DIR in str(a) for a in args)
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return Running(self.server, int(self.server.stdout.readline()), files)

    def spawn(self, command: str, *args: object, cwd: Path | None = None, stdin: str = "", check: bool = True) -> Done:
        """``fairseq-COMMAND ARGS`` as users start it."""
        script = Path(sys.executable).with_name(command if command.startswith("mos-") else f"fairseq-{command}")
        run = subprocess.run(
            [str(script), *map(str, args)],
            cwd=cwd or self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            env=_environment(),
            timeout=300,
        )
        assert not check or run.returncode == 0, run.stderr[-3000:]
        return Done(run.returncode, run.stdout, run.stderr)


@dataclass
class Running:
    """A command that may still run."""

    server: subprocess.Popen
    pid: int
    files: dict[str, str]

    def kill(self) -> Done:
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self) -> Done:
        status = int(self.server.stdout.readline())
        return Done(status, *(Path(self.files[name]).read_text("utf-8") for name in ("stdout", "stderr")))


@pytest.fixture
def log_level():
    """A command that runs in this process sets the root logger's level; it is as before afterwards."""
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    commands = Commands(tmp_path_factory.mktemp("commands"))
    yield commands
    commands.server.kill()
    commands.server.wait()


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
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    (folder / "other.yaml").write_text(yaml.safe_dump(SPACE | {"encoder_ffn_embed_dim": [32, 28]}))
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
    """Arguments of a small training run; later options win."""
    plugin = ["--user-dir", USER_DIR, "--task", task, "--arch", arch, "--criterion", criterion]
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

    composition.remember()
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
    (folder / "space.yaml").write_text(yaml.safe_dump(LM_SPACE))
    plugin = ["--user-dir", USER_DIR, "--task", "language_modeling_mos", "--arch", "transformer_lm_mos"]
    plugin += ["--search-space", folder / "space.yaml", "--criterion", "cross_entropy"]
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
