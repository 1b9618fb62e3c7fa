"""Fixtures: configurations composed by ``fairseq-hydra-train`` itself, and a small corpus."""

from __future__ import annotations

import copy
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq import optim, tasks, utils
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import make_builder
from fairseq.dataclass.initialize import add_defaults
from fairseq.optim import lr_scheduler
from fairseq_cli import hydra_train
from omegaconf import DictConfig

import mos_fairseq  # noqa: F401  registers everything

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "mos_fairseq" / "config"
WORDS = "abcdefgh"


class Built:
    """Objects that fairseq builds from a configuration. The model has shapes but no data, because WMT's is large."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg
        self.task = tasks.setup_task(cfg.task)
        self.criterion = self.task.build_criterion(cfg.criterion)
        self.optimizer = optim.build_optimizer(cfg.optimizer, [torch.nn.Parameter(torch.zeros(1))])
        self.lr_scheduler = lr_scheduler.build_lr_scheduler(cfg.lr_scheduler, self.optimizer)
        with torch.device("meta"):
            self.model = self.task.build_model(cfg.model)

    def lr_of(self, update: int) -> float:
        """Learning rate of an update; the first is 0."""
        self.lr_scheduler.step_update(update)
        return self.optimizer.get_lr()


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A binarised corpus with a joined dictionary: the translation writes each letter large."""
    folder = tmp_path_factory.mktemp("data")
    words = Dictionary()
    for word in WORDS + WORDS.upper():
        words.add_symbol(word)
    draw = random.Random(3)
    for language in ("xx", "yy"):
        words.save(str(folder / f"dict.{language}.txt"))
    for split, count in (("train", 40), ("valid", 8), ("test", 6)):
        lines = [" ".join(draw.choices(WORDS, k=draw.randint(2, 6))) for _ in range(count)]
        for language, text in (("xx", lines), ("yy", [line.upper() for line in lines])):
            prefix = str(folder / f"{split}.xx-yy.{language}")
            builder = make_builder(f"{prefix}.bin", "mmap", len(words))
            for line in text:
                builder.add_item(words.encode_line(line, add_if_not_exist=False))
            builder.finalize(f"{prefix}.idx")
    return folder


@pytest.fixture(scope="session")
def monolingual(tmp_path_factory) -> Path:
    """A binarised corpus for language models."""
    folder = tmp_path_factory.mktemp("monolingual")
    words = Dictionary()
    for word in WORDS:
        words.add_symbol(word)
    words.save(str(folder / "dict.txt"))
    draw = random.Random(4)
    for split, count in (("train", 40), ("valid", 8), ("test", 6)):
        builder = make_builder(f"{folder / split}.bin", "mmap", len(words))
        for _ in range(count):
            line = " ".join(draw.choices(WORDS, k=draw.randint(2, 6)))
            builder.add_item(words.encode_line(line, add_if_not_exist=False))
        builder.finalize(f"{folder / split}.idx")
    return folder


@pytest.fixture(scope="session")
def composed() -> dict[tuple, DictConfig]:
    """What was composed already, by the command's arguments."""
    return {}


@pytest.fixture
def compose(monkeypatch, data, monolingual, composed) -> Callable[..., DictConfig]:
    """``compose(*overrides)``: the configuration that ``fairseq-hydra-train`` trains with; exits as it does.

    ``name`` is the configuration's, ``config_dir`` its folder."""
    received: list[DictConfig] = []
    monkeypatch.setattr(hydra_train, "pre_main", received.append)
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level

    def compose(*overrides: str, name: str = "translation_mos", config_dir: Path = CONFIG) -> DictConfig:
        options = ["--config-dir", str(config_dir), "--config-name", name]
        corpus = f"task.data={data if name == 'translation_mos' else monolingual}"
        monkeypatch.setattr(sys, "argv", ["fairseq-hydra-train", *options, corpus, *overrides])
        if (words := tuple(sys.argv)) in composed:
            return copy.deepcopy(composed[words])
        try:
            hydra_train.cli_main()
        finally:  # fairseq's handler writes to what pytest closes
            logger.handlers[:] = handlers
            logger.setLevel(level)
        if config_dir == CONFIG:  # another folder's files may change
            composed[words] = copy.deepcopy(received[-1])
        return received.pop()

    return compose


@pytest.fixture
def build(compose) -> Callable[..., Built]:
    """Return ``build(*overrides)``, which builds as fairseq-train does from the composed configuration."""

    def build(*overrides: str, **how: str) -> Built:
        cfg = compose(*overrides, **how)
        utils.import_user_module(cfg.common)
        add_defaults(cfg)
        return Built(cfg)

    return build
