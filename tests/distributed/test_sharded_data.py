"""--shard-data: which process reads which folder, and epochs of equal length."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from fairseq.data import iterators
from torch.utils.data import Dataset

from mos_fairseq.distributed import largest_of_ranks
from mos_fairseq.errors import InputError
from mos_fairseq.tasks import sharded_data
from mos_fairseq.tasks.sharded_data import ShardedData


class Words(list, Dataset):
    """A set of fairseq's."""

    supports_prefetch = False

    def set_epoch(self, epoch: int) -> None: ...

    def collater(self, samples: list[str]) -> list[str]:
        return samples


class Stock:
    """In place of fairseq's task: a folder of --data an epoch, and an example a mini-batch."""

    def has_sharded_data(self, split: str) -> bool:
        return os.pathsep in self.cfg.data

    def load_dataset(self, split: str, epoch: int = 1, **kwargs: object) -> None:
        folders = self.cfg.data.split(os.pathsep)
        folder = folders[(epoch - 1) % len(folders)] if split == "train" else folders[0]
        with open(os.path.join(folder, split), encoding="utf-8") as lines:
            self.datasets[split] = Words(lines.read().split())

    def get_batch_iterator(self, dataset: Words, num_shards: int = 1, shard_id: int = 0, **kwargs: object):
        batches = self.rebuilt or [[number] for number in range(len(dataset))]
        return iterators.EpochBatchIterator(
            dataset, dataset.collater, batches, seed=1, num_shards=num_shards, shard_id=shard_id
        )


class Task(ShardedData, Stock):
    def __init__(self, folders: list[object], shard_data: bool = True) -> None:
        self.cfg = SimpleNamespace(data=os.pathsep.join(map(str, folders)), train_subset="train", shard_data=shard_data)
        self._is_training, self.datasets, self.rebuilt = True, {}, None

    def dictionary_names(self, cfg: object, folder: str) -> tuple[str, ...]:
        return ("dict.txt",)


@pytest.fixture
def folders(tmp_path):
    """Five sentences in the first, two in the second."""
    for name, words in (("a", "a1 a2 a3 a4 a5"), ("b", "b1 b2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train").write_text(words)
        (tmp_path / name / "valid").write_text(f"valid-{name}")
        (tmp_path / name / "dict.txt").write_text("x 1\n")
    return [tmp_path / "a", tmp_path / "b"]


def epoch_of(task: Task, epoch: int, rank: int) -> list[list[str]]:
    task.load_dataset("train", epoch=epoch)
    found = task.get_batch_iterator(task.datasets["train"], num_shards=2, shard_id=rank)
    return [list(batch) for batch in found.next_epoch_itr(shuffle=True)]


def test_every_process_keeps_its_folder_and_epochs_are_of_one_length(both, folders):
    def scenario(rank):
        task = Task(folders)
        task.load_dataset("valid", epoch=2)
        return [epoch_of(task, epoch, rank) for epoch in (1, 2)], task.datasets["valid"], task.has_sharded_data("train")

    for own, (epochs, valid, changes) in zip(("a1 a2 a3 a4 a5", "b1 b2"), both(scenario), strict=True):
        for batches in epochs:
            assert len(batches) == 5  # the second process has three without sentences
            assert sorted(word for batch in batches for word in batch) == own.split()
        assert valid == ["valid-a"] and not changes


def test_without_it_fairseq_reads_the_folders_in_turn(both, folders):
    def scenario(rank):
        task = Task(folders, shard_data=False)
        assert task.has_sharded_data("train")
        return [epoch_of(task, epoch, rank) for epoch in (1, 2)]

    found = both(scenario)
    assert sorted(word for epochs in found for batch in epochs[0] for word in batch) == "a1 a2 a3 a4 a5".split()
    assert sorted(word for epochs in found for batch in epochs[1] for word in batch) == ["b1", "b2"]


def test_mistakes(folders, monkeypatch):
    with pytest.raises(InputError, match="shard_data is True: it has no effect in one process"):
        Task(folders).load_dataset("train")
    monkeypatch.setattr(sharded_data, "data_parallel_size", lambda: 2)
    monkeypatch.setattr(sharded_data, "data_parallel_rank", lambda: 1)
    with pytest.raises(
        InputError, match="data lists 1 folders for 2 processes; allowed is one for each, separated by :"
    ):
        Task(folders[:1]).load_dataset("train")
    task = Task(folders)
    task.rebuilt = lambda dataset, epoch: [[0]]
    task.load_dataset("train")
    with pytest.raises(InputError, match="shard_data is True with rebuild_batches True: allowed is False"):
        task.get_batch_iterator(task.datasets["train"])
    (folders[1] / "dict.txt").write_text("y 1\n")
    with pytest.raises(InputError, match=r"b/dict.txt is not .*a/dict.txt; allowed is one dictionary"):
        Task(folders).load_dataset("train")
    (folders[1] / "dict.txt").unlink()
    with pytest.raises(InputError, match=r"/b lacks dict.txt; allowed is the first folder's"):
        Task(folders).load_dataset("train")


def test_the_largest_of_ranks(both):
    assert both(lambda rank: largest_of_ranks(3 + rank)) == (4, 4)
    assert largest_of_ranks(3) == 3
