"""Fixtures: tasks and supernets over a small space, without files or processes."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from mos_fairseq.criterions import LabelSmoothedCrossEntropyMosCriterion
from mos_fairseq.tasks import TranslationMosConfig, TranslationMosTask
from tests.helpers import dictionary, perturb, small_space


@pytest.fixture
def make_task():
    def make(**options) -> TranslationMosTask:
        usual = {"search_space": small_space().dumps(), "seed": 1, "log_interval": 100, "subnet_sampling": "sandwich"}
        options = usual | options
        words = dictionary()
        best = {"best_checkpoint_metric": "loss", "maximize_best_checkpoint_metric": False, "valid_subset": "valid"}
        best["store_ema"] = False
        return TranslationMosTask(TranslationMosConfig(**best | options), words, words)

    return make


@pytest.fixture
def make_model():
    """The task's supernet, every parameter moved away from its initial value; no dropout unless asked for."""

    def make(task, **options):
        rates = {"dropout": 0.0, "router_dropout": 0.0, "share_all_embeddings": True}
        positions = {"max_source_positions": 50, "max_target_positions": 50}
        whole = OmegaConf.create({"model": {"_name": "transformer_mos", **rates, **positions, **options}})
        model = task.build_model(whole.model)
        perturb(model)
        return model

    return make


@pytest.fixture
def make_criterion():
    return lambda task: LabelSmoothedCrossEntropyMosCriterion(task, sentence_avg=False, label_smoothing=0.1)
