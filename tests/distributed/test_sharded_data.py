"""--shard-data: which process reads which folder, and epochs of equal length."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import pytest
from fairseq.data import Dictionary, iterators
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY
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
        self.cfg = SimpleNamespace(
            data=os.pathsep.join(map(str, folders)),
            train_subset="train",
            shard_data=shard_data,
            update_freq=[1],
            fix_batches_to_gpus=False,
        )
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


MISTAKES = {
    "update_freq": ({"update_freq": [2]}, r"shard_data is True with update_freq \[2\]: allowed is \[1\]"),
    "fixed": ({"fix_batches_to_gpus": True}, "shard_data is True with fix_batches_to_gpus True: allowed is False"),
    "folders": ({"data": "x"}, "shard_data is True: data is x for 2 processes; allowed is a folder for each"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_options_that_do_not_fit(folders, monkeypatch, name):
    changes, message = MISTAKES[name]
    monkeypatch.setattr(sharded_data, "data_parallel_size", lambda: 2)
    task = Task(folders)
    vars(task.cfg).update(changes)
    with pytest.raises(InputError, match=message):
        task.load_dataset("train")


def test_one_process_is_refused(folders):
    with pytest.raises(InputError, match="shard_data is True: it has no effect in one process"):
        Task(folders).load_dataset("train")


VALUES = {"update_freq": [1], "fix_batches_to_gpus": False, "train_subset": "train", "seed": 1, "shard_data": True}
STOCK = {"dataset_impl": None, "required_seq_len_multiple": 1, "use_plasma_view": False, "batch_size": 4, "tpu": False}
REAL = {
    "translation_mos": {"source_lang": "xx", "target_lang": "yy"},
    "language_modeling_mos": {"tokens_per_sample": 20, "sample_break_mode": "eos"},
    "masked_lm_mos": {"tokens_per_sample": 20, "sample_break_mode": "eos"},
}


@pytest.mark.parametrize("name", REAL)
def test_the_tasks_train_on_the_folder_of_their_process(data, monolingual, tmp_path, monkeypatch, name):
    """The second folder has the first's test set as its training set, of another size."""
    first, second = (data if name == "translation_mos" else monolingual), tmp_path / "second"
    second.mkdir()
    for file in first.iterdir():
        if not file.name.startswith("train."):
            shutil.copy(file, second / file.name.replace("test.", "train."))
    task = TASK_REGISTRY[name]
    config = TASK_DATACLASS_REGISTRY[name]
    stock = {key: value for key, value in STOCK.items() if hasattr(config, key)}
    cfg = config(**VALUES | stock | REAL[name] | {"data": f"{first}{os.pathsep}{second}", "search_space": None})
    words = [Dictionary.load(str(first / word)) for word in task.dictionary_names(cfg, str(first))]
    monkeypatch.setattr(sharded_data, "data_parallel_size", lambda: 2)
    for rank, count in ((0, 40), (1, 6)):
        monkeypatch.setattr(sharded_data, "data_parallel_rank", lambda rank=rank: rank)
        made = task(cfg, *words)
        for epoch in (1, 2):
            made.load_dataset("train", epoch=epoch)
            assert len(made.datasets["train"]) == count
        made.load_dataset("valid")
        assert len(made.datasets["valid"]) == 8


def told(run) -> str:
    try:
        run()
    except InputError as error:
        return str(error)
    return "no error"


def test_a_mistake_of_one_process_is_told_by_all(both, folders):
    """Otherwise the others would wait for it."""
    first, second = folders

    def scenario(rank):
        found = []
        for change in (lambda: None, (second / "dict.txt").unlink, (second / "train").unlink):
            if rank == 1:
                change()
            largest_of_ranks(0)  # so that both see the folder as it is now
            found.append(told(lambda: Task(folders).load_dataset("train")))
            largest_of_ranks(0)
            if rank == 1:
                (second / "dict.txt").write_text("x 1\n")
        return found

    found = both(scenario)
    assert found[0] == found[1] and found[0][0] == "no error"
    assert found[0][1] == f"shard_data is True: {second}: it lacks dict.txt; allowed is the dictionary of {first}"
    assert found[0][2].startswith(f"shard_data is True: {second}: ") and "No such file" in found[0][2]


def test_batches_that_do_not_fit(both, folders):
    (folders[1] / "dict.txt").write_text("y 1\n")
    (folders[1] / "train").write_text("")

    def scenario(rank):
        found = [told(lambda: Task(folders).load_dataset("train"))]
        largest_of_ranks(0)
        if rank == 1:
            (folders[1] / "dict.txt").write_text("x 1\n")
        largest_of_ranks(0)
        task = Task(folders)
        task.load_dataset("train")
        found.append(told(lambda: task.get_batch_iterator(task.datasets["train"])))
        found.append(told(lambda: task.get_batch_iterator(task.datasets["train"], grouped_shuffling=True)))
        task.rebuilt = lambda dataset, epoch: [[0]]
        return [*found, told(lambda: task.get_batch_iterator(task.datasets["train"]))]

    found = both(scenario)
    assert found[0] == found[1]
    assert found[0][0].endswith(f"{folders[1]}: its dict.txt is another; allowed is the dictionary of {folders[0]}")
    assert found[0][1].endswith(f"{folders[1]} has no sentence that is short enough to train on")
    assert found[0][2] == "shard_data is True with grouped_shuffling True: allowed is False"
    assert found[0][3] == "shard_data is True with rebuild_batches True: allowed is False"


def test_the_largest_of_ranks(both):
    assert both(lambda rank: largest_of_ranks(3 + rank)) == (4, 4)
    assert largest_of_ranks(3) == 3
