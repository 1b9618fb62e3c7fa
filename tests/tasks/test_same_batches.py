"""A run that is resumed in a later epoch has the mini-batches that it had: with our task, and with ours only."""

from __future__ import annotations

import pytest
import torch
from fairseq.data import LanguagePairDataset
from fairseq.tasks.fairseq_task import FairseqTask
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from mos_fairseq.tasks.same_batches import same_batches
from tests.helpers import dictionary


def batches(task, epoch: int, **options) -> list[list[int]]:
    """The groups of a run that starts in ``epoch``, as the trainer asks for them."""
    words = dictionary()
    sentences = [torch.tensor([4 + i % 9, 2]) for i in range(40)]  # of one length: only the draw distinguishes them
    data = LanguagePairDataset(sentences, [2] * 40, words, sentences, [2] * 40, words)
    task.datasets["train"] = data
    iterator = task.get_batch_iterator(dataset=data, max_sentences=4, seed=5, epoch=epoch, **options)
    return [list(map(int, batch)) for batch in iterator.frozen_batches]


def stock_task() -> TranslationTask:
    return TranslationTask(TranslationConfig(), dictionary(), dictionary())


def test_our_task(make_task):
    first = batches(make_task(), 1)
    assert batches(make_task(), 3) == first and batches(make_task(seed=1), 2) == first
    assert batches(make_task(), 1) == batches(stock_task(), 1)


@pytest.mark.parametrize("option", ["disable_iterator_cache", "update_epoch_batch_itr"])
def test_groups_that_are_made_every_epoch_are_fairseqs(make_task, option):
    assert batches(make_task(), 3, **{option: True}) == batches(stock_task(), 3, **{option: True})
    assert batches(make_task(), 3, **{option: True}) != batches(make_task(), 1, **{option: True})


def test_other_tasks_are_as_they_were(monkeypatch):
    assert not hasattr(FairseqTask.get_batch_iterator, "__wrapped__")
    first = batches(stock_task(), 1)
    assert batches(stock_task(), 3) != first
    # as for standalone models that are compared with a supernet's
    monkeypatch.setattr(TranslationTask, "get_batch_iterator", same_batches(TranslationTask.get_batch_iterator))
    assert batches(stock_task(), 3) == first
