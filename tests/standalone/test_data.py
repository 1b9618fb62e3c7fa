"""Runs of the same data share standalone models: the definition of the same data."""

import os
from pathlib import Path

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.data import dataset_impl
from mos_fairseq.standalone.data import check_one_folder, data_digest

FILES = ("dict.xx.txt", "dict.yy.txt", "train.xx-yy.xx.bin", "train.xx-yy.xx.idx", "train.xx-yy.yy.bin")


@pytest.fixture
def folders(tmp_path):
    """Two folders as in training on shards: dictionaries and other sets are read from the first only."""
    for number in (1, 2):
        folder = tmp_path / f"bin{number}"
        folder.mkdir()
        for name in (*FILES, "valid.xx-yy.xx.bin", "test.xx-yy.xx.bin", "preprocess.log"):
            (folder / name).write_text(f"{name} {number}")
    return tmp_path / "bin1", tmp_path / "bin2"


def swap(path: Path) -> None:
    """Other content of the same size and the same times."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("shard", [0, 1])
def test_all_that_trains_counts(folders, name, shard):
    data = ":".join(map(str, folders))
    before = data_digest(data)
    swap(folders[shard] / name)
    assert (data_digest(data) == before) == (shard == 1 and name.startswith("dict."))


def test_what_does_not_train_does_not_count(folders, tmp_path):
    before = data_digest(str(folders[0]))
    for name in ("valid.xx-yy.xx.bin", "test.xx-yy.xx.bin", "preprocess.log"):
        swap(folders[0] / name)
    moved = folders[0].rename(tmp_path / "elsewhere")
    assert data_digest(str(moved)) == before
    assert data_digest(f"{moved}:{folders[1]}") != before
    (moved / "train1.xx-yy.xx.bin").write_text("fairseq trains on this, too")
    assert data_digest(str(moved)) != before


def test_another_training_set(folders):
    before = data_digest(str(folders[0]), "valid")
    swap(folders[0] / "train.xx-yy.xx.bin")
    assert data_digest(str(folders[0]), "valid") == before
    swap(folders[0] / "valid.xx-yy.xx.bin")
    assert data_digest(str(folders[0]), "valid") != before


def test_a_folder_that_is_not_there(folders):
    for data, missing in (("none", "none"), (f"{folders[0]}:none", "none"), ("", "")):
        with pytest.raises(InputError, match=f"data is {missing}: "):
            data_digest(data)


def test_how_sets_are_stored(tmp_path):
    assert dataset_impl(str(tmp_path), "train") is None  # fairseq reports what is missing
    for name in ("train.xx-yy.xx", "train.xx-yy.yy"):
        (tmp_path / name).write_text("a b\n")
    assert dataset_impl(str(tmp_path), "train") == "raw"
    assert dataset_impl(str(tmp_path), "valid") is None
    for name in ("train.xx-yy.xx.idx", "train.xx-yy.xx.bin"):
        (tmp_path / name).write_text("")
    assert dataset_impl(str(tmp_path), "train") is None


def test_folders_of_several_processes_are_refused():
    """One process would read them in turn."""
    trained = {"task": {"_name": "translation_mos", "shard_data": True}}
    check_one_folder(trained, "all")
    check_one_folder({"task": {"_name": "translation_mos"}}, f"a{os.pathsep}b")
    with pytest.raises(InputError, match="^data is a.b, and the supernet was trained with --shard-data: one process"):
        check_one_folder(trained, f"a{os.pathsep}b")
