"""GLUE's tables become texts and labels."""

from __future__ import annotations

import subprocess

import columns
import pytest

from .conftest import EXAMPLES

PREPARE = EXAMPLES / "recipes" / "glue" / "prepare.sh"


def folder(tmp_path, train: str, dev: str, name: str = "dev.tsv"):
    (tmp_path / "train.tsv").write_text(train, encoding="utf-8")
    (tmp_path / name).write_text(dev, encoding="utf-8")
    return ["--glue", str(tmp_path), "--output", str(tmp_path / "out")]


def column(tmp_path, name: str) -> list[str]:
    return (tmp_path / "out" / name).read_text(encoding="utf-8").splitlines()


def test_pairs_by_the_names_of_columns(tmp_path, capsys):
    rows = "".join(f"{i}\tfirst {i}\tsecond\u00a0 {i}\t{'yes' if i % 2 else 'no'}\n" for i in range(1, 41))
    broken = "41\tbroken\n42\ttext\t\tyes\n43\ttext\ttext\tone two\n44\ttext\ttext\t\n"
    head = "index\tsentence1\tsentence2\tlabel\n"
    columns.main(["--task", "RTE", *folder(tmp_path, "\ufeff" + head + rows + broken, head + '1\ta "b\tc\tyes\r\n')])
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/out: 38 train, 2 valid, 1 test\n"
    assert said.err == f"warning: {tmp_path}/train.tsv: 4 of 44 lines are no examples of RTE, and left out\n"
    assert column(tmp_path, "valid.input0") == ["first 20", "first 40"]
    assert column(tmp_path, "valid.input1") == ["second 20", "second 40"]
    assert column(tmp_path, "train.label")[:3] == ["yes", "no", "yes"] and len(column(tmp_path, "train.label")) == 38
    assert [column(tmp_path, f"test.{name}") for name in ("input0", "input1", "label")] == [['a "b'], ["c"], ["yes"]]


def test_single_sentences_without_a_header(tmp_path, capsys):
    rows = "broken\nsource\tlabel\toriginal\tsentence\n"
    rows += "".join(f"gj04\t{i % 2}\t*\tSentence {i}.\n" for i in range(20))
    columns.main(["--task", "CoLA", *folder(tmp_path, rows, "x\t1\t\tAnother.\n")])
    assert "2 of 22 lines" in capsys.readouterr().err
    assert column(tmp_path, "valid.input0") == ["Sentence 19."] and column(tmp_path, "test.input0") == ["Another."]
    assert column(tmp_path, "train.label") == ["0", "1"] * 9 + ["0"]
    assert not (tmp_path / "out" / "train.input1").exists()


def test_mnli_has_a_matched_development_set(tmp_path):
    head = "sentence1\tsentence2\tgold_label\n"
    train = head + "a\tb\tneutral\n" * 20
    dev = "sentence1\tsentence2\tlabel1\tgold_label\nc\td\tx\tentailment\n"  # it has more columns
    columns.main(["--task", "MNLI", *folder(tmp_path, train, dev, "dev_matched.tsv")])
    assert column(tmp_path, "test.label") == ["entailment"]


@pytest.mark.parametrize(
    ("task", "train", "message"),
    [
        ("SST-2", "sentence\tclass\n", "error: {tmp}/train.tsv has no column label: is it GLUE's SST-2?"),
        ("RTE", "", "error: {tmp}/train.tsv is empty"),
        ("CoLA", "a\t1\t\tb\n", "error: {tmp} has 1 and 1 examples: allowed are 20 and 1 or more"),
        ("MNLI", "", "error: {tmp}/dev_matched.tsv is missing"),
    ],
)
def test_other_files_are_told(tmp_path, task, train, message):
    with pytest.raises(SystemExit) as error:
        columns.main(["--task", task, *folder(tmp_path, train, "a\t1\t\tb\n")])
    assert error.value.code == message.format(tmp=tmp_path)


def test_another_encoding_and_a_file_in_the_place_of_the_folder(tmp_path):
    words = folder(tmp_path, "", "a\t1\t\tb\n")
    (tmp_path / "train.tsv").write_bytes("gj04\t1\t\tété\n".encode("latin-1"))
    with pytest.raises(SystemExit, match="train.tsv cannot be read as UTF-8"):
        columns.main(["--task", "CoLA", *words])
    (tmp_path / "train.tsv").write_text("gj04\t1\t\ta\n" * 20)
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit, match="out: File exists"):
        columns.main(["--task", "CoLA", *words])


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ("128", "error: {tmp}/bert/tokenizer.json is missing"),
        ("x", "error: LENGTH is x: allowed are 8 to 512, a BERT's positions"),
    ],
)
def test_the_script_tells_mistakes(tmp_path, length, message):
    words = ["bash", PREPARE, tmp_path, "RTE", tmp_path / "bert", tmp_path / "work"]
    done = subprocess.run(words, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "LENGTH": length})
    assert done.returncode == 1 and done.stderr == message.format(tmp=tmp_path) + "\n"
    assert not (tmp_path / "work").exists()
