"""The study of Debian's descriptions: its texts, labels and pairs, their tokens, and the table."""

from __future__ import annotations

import json
import subprocess
import sys

import accuracies
import baseline
import descriptions
import inherited
import numpy as np
import pieces
import pytest

from mos_fairseq.search_space import SearchSpace, Subnet

from .conftest import EXAMPLES

PACKAGES = """Package: zeta
Source: alpha (1.2)
Description: long since elsewhere
Description-md5: 1
Section: net

Package: alpha
Description-md5: 2
Section: net
Tag: role::program,
 use::browsing

Package: beta
Description-md5: 3
Section: doc

Package: silent
Description-md5: 9
Section: doc
"""
TRANSLATION = """Package: zeta
Description-md5: 1
Description-en: Zeta tool
 Shared by
 one source.
 .
 Of zeta  alone:
  * a list

Package: alpha
Description-md5: 2
Description-en: Alpha tool!
 Shared by one source.
 .
 Shared by two.

Package: beta
Description-md5: 3
Description-en: Beta tool
 Shared by two.
 .
 Of beta alone.
"""


@pytest.fixture
def packages(tmp_path):
    (tmp_path / "Packages").write_text(PACKAGES)
    (tmp_path / "Translation-en").write_text(TRANSLATION)
    return descriptions.read_packages(tmp_path)


def test_what_two_sources_share_is_left_out(packages):
    assert [(p.name, p.source, p.section) for p in packages] == [
        ("alpha", "alpha", "net"),
        ("beta", "beta", "doc"),
        ("zeta", "alpha", "net"),
    ]
    assert [p.paragraphs for p in packages] == [
        ("Shared by one source.",),
        ("Of beta alone.",),
        ("Shared by one source.", "Of zeta alone: * a list"),
    ]
    found = sorted(text for _, (text,) in descriptions.texts(packages))
    assert found == [
        "Alpha tool! Shared by one source.",
        "Beta tool. Of beta alone.",
        "Zeta tool. Of zeta alone: * a list",
    ]


def test_a_source_is_in_one_split(packages):
    chosen = descriptions.one_of_each_source(packages)
    assert sorted(p.source for p in chosen) == ["alpha", "beta"]
    splits = [descriptions.split_of(f"package{number}") for number in range(2000)]
    assert splits == [descriptions.split_of(f"package{number}") for number in range(2000)]
    assert {split: splits.count(split) for split in descriptions.SPLITS} == {"train": 1581, "valid": 221, "test": 198}


def test_labels_and_pairs(monkeypatch):
    chosen = [
        descriptions.Package(f"p{i}", f"p{i}", "net" if i % 3 else "doc", f"tool {i}", (f"text {i}", "more"))
        for i in range(300)
    ]
    monkeypatch.setattr(descriptions, "SMALLEST_SECTION", 150)
    found = list(descriptions.sections(chosen))
    assert len(found) == 200 and {label for _, (_, label) in found} == {"net"}
    assert found[0][1][0] == "tool 1. text 1 more"
    pairs = [columns for _, columns in descriptions.pairs(chosen)]
    for synopsis, paragraph, label in pairs:
        mine, theirs = (int(text.split()[1]) for text in (synopsis, paragraph))
        assert (label == "same") == (mine == theirs) and (mine % 3 == 0) == (theirs % 3 == 0)
        assert descriptions.split_of(f"p{mine}") == descriptions.split_of(f"p{theirs}")
    assert 100 < sum(label == "same" for *_, label in pairs) < 200


def test_cut_to_a_length(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = {"text/train.text": "a b c a b", "one/train.input0": "a b b a a", "one/train.label": "net"}
    texts |= {"two/train.input0": "a a a a", "two/train.input1": "b b b b b b", "two/train.label": "same"}
    for name, text in texts.items():
        (tmp_path / "text" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "text" / name).write_text(f"{text}\n")
    paths = {"--tokenizer": "tokenizer.json", "--text": "text", "--output": "out"}
    pieces.main([word for option, name in paths.items() for word in (option, str(tmp_path / name))] + ["--length", "6"])
    found = {name: (tmp_path / "out" / name).read_text() for name in texts}
    assert found["text/train.text"] == "a b [UNK] a\nb\n" and found["one/train.input0"] == "a b b a\n"
    assert found["two/train.input0"] == "a\n" and found["two/train.input1"] == "b b\n"
    assert found["two/train.label"] == "same\n"
    words = [word for option, name in paths.items() for word in (option, str(tmp_path / name))]
    pieces.main([*words, "--length", "8", "--pairs", "longest"])
    found = {name: (tmp_path / "out" / name).read_text() for name in texts}
    assert found["one/train.input0"] == "a b b a a\n"
    # five tokens for both: the longer text loses two, and then each its last in turn, the second first
    assert found["two/train.input0"] == "a a a\n" and found["two/train.input1"] == "b b\n"


def test_the_linear_model(tmp_path, capsys):
    for split in ("train", "test"):
        (tmp_path / f"{split}.input0").write_text("red apple\nblue sky\n" * 6)
        (tmp_path / f"{split}.label").write_text("fruit\nair\n" * 6)
    words = ["--text", str(tmp_path), "--examples", "10", "--output", str(tmp_path / "out.json")]
    baseline.main([*words, "--test-examples", "5"])
    found = json.loads((tmp_path / "out.json").read_text())
    assert found == {"accuracy": 100, "majority": 60, "examples": 5, "hits": "11111"}
    for split in ("train", "test"):
        (tmp_path / f"{split}.input1").write_text("red pear\ndark sea\n" * 6)
    baseline.main(words)
    assert json.loads((tmp_path / "out.json").read_text())["accuracy"] == 100


def test_rows_and_table(tmp_path, monkeypatch, capsys):
    scores = {"accuracy": 75.0, "examples": 4, "hits": "1101"}
    (tmp_path / "baseline-section-40.json").write_text(json.dumps(scores))
    names = ["supernet-best-50", "start-largest", "classifiers-best-50", "inherited-a01"]
    for name in [f"section-40-{name}-layer-1" for name in names]:
        (tmp_path / "tuned" / name).mkdir(parents=True)
        (tmp_path / "tuned" / name / "score.json").write_text(json.dumps(scores | {"found": []}))
    sizes = {"params": 22_700_000, "params_without_embeddings": 5_000_000, "flops_without_output_projection": 1}
    (tmp_path / "layer-1" / "section-40").mkdir(parents=True)
    kinds = {"largest": {"encoder_layers": 6}, "best-50": {"encoder_layers": 3}}
    # mos-cost tells a subnet as it was given, a file
    costs = [{"subnet": f"{tmp_path}/{name}.yaml", "architecture": kind} | sizes for name, kind in kinds.items()]
    timed = [{"format": 3}, *({"subnet": kind, "latency_ms": kind["encoder_layers"] / 3} for kind in kinds.values())]
    (tmp_path / "layer-1" / "latency.jsonl").write_text("".join(json.dumps(row) + "\n" for row in timed))
    (tmp_path / "layer-1" / "costs.jsonl").write_text("".join(json.dumps(cost) + "\n" for cost in costs))
    another = costs[1] | {"params_without_embeddings": 4_000_000}  # found by another search
    (tmp_path / "layer-1" / "section-40" / "costs.jsonl").write_text(json.dumps(another) + "\n")
    (tmp_path / "architectures").mkdir()
    smallest = {"subnet": f"{tmp_path}/architectures/a01.yaml"} | sizes | {"params_without_embeddings": 1_000_000}
    (tmp_path / "architectures" / "costs.jsonl").write_text(json.dumps(smallest) + "\n")
    (tmp_path / "masked" / "a01-none-2").mkdir(parents=True)
    words = {"mean": 6.5, "words": [3, 1], "texts": 40, "bits": [20.0, 6.0]}
    (tmp_path / "masked" / "a01-none-2" / "masked.json").write_text(json.dumps(words))
    monkeypatch.setattr(sys, "argv", ["accuracies.py", str(tmp_path)])
    accuracies.main()
    *rows, masked = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert (masked["subnet"], masked["routing"], masked["seed"], masked["bits"]) == ("a01", "none", 2, 6.5)
    assert masked["params_without_embeddings"] == 1_000_000
    parts = inherited.parts_of(tmp_path, masked)
    assert {key: found.tolist() for key, found in parts.items()} == {"parts": [20, 6], "weights": [3, 1]}
    assert len(rows) == 5 and rows[0]["subnet"] == "TF-IDF, linear"
    assert {f"{row['source']}-{row['subnet']}" for row in rows[1:]} == {*names}
    found = {row["source"]: row["params_without_embeddings"] for row in rows[1:]}
    assert (found["classifiers"], found["inherited"]) == (4_000_000, 1_000_000)
    line = "| section, 40 | best-50 | `layer`, 1 | supernet | 5.0 | 22.7 | 0.0 | 1.0 | 75.0 (25.0 to 100.0) |"
    assert line in capsys.readouterr().out


def test_where_weights_come_from():
    names = ("best-50", "tuned-4-best-50", "alone-16-uniform-25")
    found = [accuracies.weights_of({"subnet": name, "source": "classifiers"}) for name in names]
    assert found == [
        "supernet of classifiers",
        "supernet of classifiers, then alone",
        "supernet, then the teacher alone",
    ]


def test_inherited_against_alone():
    sizes = {"params_without_embeddings": 1_500_000, "flops_without_output_projection": 2_000_000, "latency_ms": 7.12}

    def rows_of(source, routing, seed, *counts):
        """Of a hundred test examples, so many are right."""
        row = {"task": "section", "examples": "40", "source": source, "routing": routing, "seed": seed} | sizes
        row |= {"weights": np.ones(100)}
        hits = {n: np.array([100.0] * n + [0.0] * (100 - n)) for n in counts}
        return [
            row | {"subnet": f"a{i:02}", "accuracy": float(n), "parts": hits[n]} for i, n in enumerate(counts, start=1)
        ]

    names = ["a01", "a02", "a03"]
    rows = [{"task": "section", "examples": "40", "subnet": "TF-IDF, linear", "accuracy": 50.0}]
    rows += rows_of("alone", "none", 1, 60, 64, 68)
    rows += rows_of("inherited", "none", 1, 58, 61, 66) + rows_of("inherited", "none", 2, 60, 63, 68)
    rows += rows_of("inherited", "layer", 2, 61, 62, 69) + rows_of("inherited", "layer", 1, 62, 64)
    lines = inherited.report(rows, names).splitlines()
    assert lines[0] == "| section, 40 | parameters | MFLOPs | ms | alone | `none` | `layer` |"
    assert lines[2] == "| a01 | 1.5 | 2 | 7.1 | 60.0 | 59.0 ± 1.4 | 61.5 ± 0.7 |"
    assert lines[4] == "| a03 | 1.5 | 2 | 7.1 | 68.0 | 67.0 ± 1.4 | 69.0 |"
    evidence = {line.split(" | ")[0]: line.split(" | ") for line in lines[5:] if line.startswith("| ")}
    assert evidence["| none"][1:4] == ["2", "64.0", "62.7"]
    # bias -1.3, MAE 1.3, spread 3 of 4 points without the largest, in the same order
    assert [cell.split(" (")[0] for cell in evidence["| none"][4:]] == ["-1.3", "1.3", "0.75", "1.00"]
    assert evidence["| layer"][1] == "1"  # that of seed 1 is not complete
    assert len(inherited.report(rows, [*names, "a04"]).splitlines()) == 5  # a04 is to be trained
    assert lines[-1].startswith("`layer` minus `none`, mean over architectures: +0.3 (-0.7 to +1.3; seed 2)")
    assert not lines[-1].endswith("found")  # one seed tells nothing
    again = rows_of("inherited", "layer", 1, 62, 64, 70)
    lines = inherited.report(
        [row for row in rows if (row.get("routing"), row.get("seed")) != ("layer", 1)] + again, names
    )
    assert lines.splitlines()[-1].endswith("seed 2): no difference found")

    tuned = rows_of("tuned", "layer", 2, 63)
    lines = inherited.report([{k: v for k, v in row.items() if k != "latency_ms"} for row in rows + tuned], names)
    assert lines.splitlines()[0].endswith("| `layer` | `layer`, then alone |")
    assert lines.splitlines()[2] == "| a01 | 1.5 | 2 |  | 60.0 | 59.0 ± 1.4 | 61.5 ± 0.7 | 63.0 |"

    # as if each example had four words
    bits = [
        row
        | {"weights": np.full(100, 4), "bits": row["accuracy"] / 10, "source": "masked", "parts": row["parts"] * 0.4}
        for row in rows[4:]
    ]
    lines = inherited.report(rows + bits, names).splitlines()
    assert "| a01 | 1.5 | 2 | 7.1 | 5.900 ± 0.141 | 6.150 ± 0.071 |" in lines
    assert lines[-1].startswith("`layer` minus `none`, mean over architectures: +0.033 (-0.067 to +0.133; seed 2)")

    better = rows_of("inherited", "neuron", 1, 78, 81, 86) + rows_of("inherited", "neuron", 2, 80, 83, 88)
    lines = inherited.report(rows + better, names).splitlines()
    assert lines[-1].startswith("`neuron` minus `none`, mean over architectures: +20.0 (") and "seed 2)" in lines[-1]
    assert not lines[-1].endswith("found")


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("run.sh", ["{tmp}/work"], "error: {tmp}/none is not prepared: bash examples/recipes/bert_debian/prepare.sh"),
        ("run.sh", ["{tmp}/work", "x"], "error: SEED is x: allowed are whole numbers"),
        ("run.sh", ["{tmp}/work", "1"], "error: SAMPLING is alternate: allowed are sandwich and random"),
        ("run.sh", ["{tmp}/work", "1"], "error: SOURCES has teacher: allowed are supernet, start and random"),
        ("run.sh", ["{tmp}/work", "1"], "error: SOURCES is start random: it lacks supernet, whose winner is exported"),
        ("run.sh", ["{tmp}/work", "1"], "error: TASKS has glue: allowed are section and pair"),
        (
            "classifiers.sh",
            ["{tmp}/work", "2"],
            "error: {tmp}/work/tuned/section-4000-supernet-largest-none-2/checkpoint_last.pt is missing: run.sh makes "
            "it, with the same settings",
        ),
        ("alone.sh", ["{tmp}/work"], "error: PARTS has half: allowed are supernets, alone, tuned, taught and masked"),
        ("alone.sh", ["{tmp}/work"], "error: PARTS is empty: allowed are supernets, alone, tuned, taught and masked"),
        ("alone.sh", ["{tmp}/work"], "error: PRECISION is fp16: allowed are fp32 and bf16"),
        ("run.sh", ["{tmp}/work"], "error: PRECISION is fp16: allowed are fp32 and bf16"),
        ("alone.sh", ["{tmp}/work"], "error: ARCHITECTURES has a09: allowed are a01 to a08"),
        ("alone.sh", ["{tmp}/work"], "error: ARCHITECTURES is a01: PARTS=supernets scores all of them"),
        ("run.sh", ["{tmp}/work"], "error: VALID_SAMPLES is 0: allowed are whole numbers from 1"),
        ("prepare.sh", ["{tmp}/work"], "error: LENGTH is 7: allowed are 8 to 512, the encoder's positions"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, script, words, message):
    settings = {"SAMPLING": "alternate"} if "SAMPLING" in message else {}
    if "TASKS" in message:
        settings["TASKS"] = "section glue"
    if "SOURCES" in message:
        settings["SOURCES"] = "supernet teacher" if "teacher" in message else "start random"
    if "PARTS" in message:
        settings["PARTS"] = "alone half" if "half" in message else " "
    if "PRECISION" in message:
        settings["PRECISION"] = "fp16"
    if "ARCHITECTURES has" in message:
        settings["ARCHITECTURES"] = "a01 a09"
    if "ARCHITECTURES is" in message:
        settings |= {"ARCHITECTURES": "a01", "PARTS": "supernets"}
    if "VALID_SAMPLES" in message:
        settings["VALID_SAMPLES"] = "0"
    done = subprocess.run(
        ["bash", EXAMPLES / "recipes" / "bert_debian" / script, *(word.format(tmp=tmp_path) for word in words)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "DATA": f"{tmp_path}/none", "LENGTH": "7", **settings},
    )
    assert done.returncode == 1 and done.stderr == message.format(tmp=tmp_path) + "\n"


@pytest.mark.parametrize("status", [0, 3])
def test_a_finished_training_keeps_one_checkpoint(tmp_path, status):
    """The checkpoint to go on from is as large as the last; it stays where the training failed."""
    (tmp_path / "fairseq-train").write_text(f"#!/bin/sh\necho $* >{tmp_path}/words\nexit {status}\n")
    (tmp_path / "fairseq-train").chmod(0o755)
    folder = tmp_path / "saved"
    folder.mkdir()
    for name in ("checkpoint_last.pt", "checkpoint_2_100.pt"):
        (folder / name).touch()
    recipe = EXAMPLES / "recipes" / "bert_debian"
    done = subprocess.run(
        ["bash", "-c", f"here={recipe}; . $here/settings.sh; seed=7; train {folder} 40 data --batch-size 3"],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert (done.returncode, done.stderr) == (status, "")
    assert len(list(folder.iterdir())) == (1 if status == 0 else 2) and (folder / "checkpoint_last.pt").exists()
    words = (tmp_path / "words").read_text()
    assert (
        words.startswith("data --batch-size 3 ") and "--warmup-updates 4 --total-num-update 40 --max-update 40" in words
    )


def test_what_a_search_found_itself_is_compared(tmp_path):
    """mos-search's best subnet may be the uniform one that it is compared with."""
    space = SearchSpace.from_spec("bert_tiny")
    largest, smallest = ({"architecture": subnet.to_dict()} for subnet in (space.largest(), space.smallest()))
    found = {"best": smallest, "algorithm_best": largest, "compared": {"uniform": smallest}}
    (tmp_path / "search.json").write_text(json.dumps(found))
    script = f"here={EXAMPLES / 'recipes' / 'bert_debian'}; . $here/settings.sh; take_found {tmp_path} {tmp_path} 50"
    subprocess.run(["bash", "-c", script], check=True)
    assert Subnet.load(tmp_path / "best-50.yaml") == space.largest()
    assert Subnet.load(tmp_path / "uniform-50.yaml") == space.smallest()
