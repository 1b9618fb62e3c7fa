"""The study of options of training: its table, parts of a corpus, and refused input."""

import json
import subprocess

import arms
import pytest
import shards
import torch
from fairseq.data import indexed_dataset

from .conftest import EXAMPLES

RUN = EXAMPLES / "studies" / "training" / "run.sh"


def test_differences_are_paired_by_seed(tmp_path, capsys):
    rows = []
    for seed, level in ((1, 3.0), (2, 3.5), (3, 4.0)):
        for arm, change in (("none", 0.0), ("full", (0.1, 0.2, 0.3)[seed - 1])):
            found = dict.fromkeys(arms.SUBNETS, level + change) | {"largest": level + change - 1.2}
            rows.append({"arm": arm, "seed": seed, "losses": found})
    rows[0]["sent_mb"] = 7.5
    (tmp_path / "experts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arms.main("experts", str(tmp_path), "data", "none-1", "full-3")  # known already: nothing is judged
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| none | 3 | 2.300 | 3.500 | 3.500 | 3.400 |  | 7.5 |",
        # mean 0.2, standard deviation 0.1: half of the interval is 4.303 x 0.1 / sqrt(3)
        "| full | 3 | 2.500 | 3.700 | 3.700 | 3.600 | +0.200 (-0.048 to +0.448) |  |",
    ]


def test_parts_are_the_whole_in_order(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "dict.en.txt").write_text("a 1\n")
    sentences = [torch.arange(5, 7 + number) for number in range(11)]
    for name in ("train.en-de.en", "valid.en-de.en"):
        builder = indexed_dataset.make_builder(str(data / f"{name}.bin"), "mmap")
        for sentence in sentences:
            builder.add_item(sentence)
        builder.finalize(str(data / f"{name}.idx"))
    shards.main(str(data), str(tmp_path / "parts"), "4")
    found = []
    for part in range(4):
        folder = tmp_path / "parts" / "4" / f"part{part}"
        assert (folder / "dict.en.txt").exists() and (folder / "valid.en-de.en.bin").exists()
        dataset = indexed_dataset.make_dataset(str(folder / "train.en-de.en"), "mmap")
        found.append([dataset[index].tolist() for index in range(len(dataset))])
    assert [len(part) for part in found] == [2, 3, 3, 3]
    assert sum(found, []) == [sentence.tolist() for sentence in sentences]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["everything", "work", "data"],
            "STUDY is everything: allowed are experts, frozen, optimizers, schedules and rounds",
        ),
        (["experts", "work", "nowhere"], "DATA is nowhere: no such folder"),
    ],
)
def test_mistakes(tmp_path, arguments, message):
    done = subprocess.run(["bash", RUN, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines() == [f"error: {message}"]
    assert not list(tmp_path.iterdir())
