"""The quickstart's report, its subword step and its shell scripts."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import quickstart_report
import subwords

from .conftest import EXAMPLES

GENERATED = """S-2\tThree .
T-2\tDrei.
H-2\t-0.5\tDrei .
D-2\t-0.5\tDrei.
P-2\t-0.1 -0.2
S-0\tOne\tmore.
H-0\t-0.25\tEins .
D-0\t-0.25\tEins.
D-0\t-0.75\tEin.
D-1\t-1.0\t
Generate test with beam=4: BLEU4 = 1.00
"""


def test_hypotheses_come_in_the_order_of_the_sentences(tmp_path):
    file = tmp_path / "generate-test.txt"
    file.write_text(GENERATED, encoding="utf-8")
    assert quickstart_report.read_hypotheses(file) == ["Eins.", "", "Drei."]


def test_missing_hypotheses_are_an_error(tmp_path):
    file = tmp_path / "generate-test.txt"
    file.write_text(GENERATED.replace("D-1\t", "X-1\t"), encoding="utf-8")
    with pytest.raises(quickstart_report.ReportError, match="required-batch-size-multiple"):
        quickstart_report.read_hypotheses(file)


def test_report_prints_a_table_and_writes_the_plot(tmp_path, capsys):
    references = ["Das ist ein Test für den Bericht.", "Die Katze sitzt auf der alten Matte.", "Drei Äpfel."]
    (tmp_path / "test.de").write_text("".join(line + "\n" for line in references), encoding="utf-8")
    for name, hypotheses in (("largest", references), ("random-1", ["Nein.", *references[1:]])):
        (tmp_path / name).mkdir()
        lines = "".join(f"D-{i}\t-0.1\t{text}\n" for i, text in reversed(list(enumerate(hypotheses))))
        (tmp_path / name / "generate-test.txt").write_text(lines, encoding="utf-8")
    plot = tmp_path / "bleu.png"
    runs = [f"largest={tmp_path / 'largest'}", f"random:1={tmp_path / 'random-1'}"]
    quickstart_report.main(["--reference", str(tmp_path / "test.de"), "--plot", str(plot), *runs])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["subnet", "parameters", "BLEU"]
    assert lines[1].split() == ["largest", "-", "100.0"]
    assert lines[2].startswith("random:1") and float(lines[2].split()[-1]) < 100
    assert lines[-1] == f"plot: {plot}"
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_report_says_that_the_machine_was_busy(tmp_path, capsys, monkeypatch):
    (tmp_path / "test.de").write_text("Eins.\n")
    (tmp_path / "generate-test.txt").write_text("D-0\t-0.1\tEins.\n")
    files = ["--reference", str(tmp_path / "test.de"), "--plot", str(tmp_path / "p.png"), "--checkpoint", "c.pt"]
    for busy, lines in ((None, []), ("the machine was busy: …", ["warning: the machine was busy: …"])):
        monkeypatch.setattr(quickstart_report, "look_up", lambda *_, busy=busy: ({}, busy))
        quickstart_report.main([*files, f"largest={tmp_path}"])
        assert capsys.readouterr().out.splitlines()[2:-1] == lines


@pytest.mark.slow
def test_report_with_latencies(tmp_path, capsys):
    """With two measured subnets, BLEU is plotted against latency; a YAML file is shown by its name."""
    known = quickstart_report.Known
    results = [quickstart_report.Result("best", 31.25, known(1234567, None, 8.125))]
    results.append(quickstart_report.Result("a", 7.0, known(9, 9.5, 10.0)))
    lines = quickstart_report.table(results).splitlines()
    assert [line.split() for line in lines] == [
        ["subnet", "parameters", "predicted", "measured", "BLEU"],
        ["best", "1,234,567", "-", "8.1", "ms", "31.2"],
        ["a", "9", "9.5", "ms", "10.0", "ms", "7.0"],
    ]
    lines = quickstart_report.table(results[:1]).splitlines()
    assert lines[0].split() == ["subnet", "parameters", "measured", "BLEU"]
    row = {"latency_ms": 9.5, "loss": 2.5}
    search = {"front": [row, row | {"loss": 2.25}], "best": row, "compared": {"smallest": row, "beyond": row}}
    widths = []
    for found in (None, search):
        quickstart_report.plot(results, tmp_path / "plot.png", 9.0, found)
        picture = (tmp_path / "plot.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        widths.append(int.from_bytes(picture[16:20], "big"))  # of its header
    assert widths == [900, 1650]  # the front is beside
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "generate-test.txt").write_text("D-0\t-0.1\tEins.\n")
    found = quickstart_report.score("runs/search/best.yaml", tmp_path / "out", ["Eins."], known(5, 2.25, 2.5))
    assert (found.subnet, found.known) == ("best", known(5, 2.25, 2.5))


def test_report_says_what_is_missing(tmp_path):
    (tmp_path / "test.de").write_text("Eins.\n", encoding="utf-8")
    arguments = ["--reference", str(tmp_path / "test.de"), "--plot", str(tmp_path / "p.png")]
    with pytest.raises(SystemExit, match="generate-test.txt is missing"):
        quickstart_report.main([*arguments, f"largest={tmp_path}"])
    row = {"loss": 1.0, "flops": 2.0}
    searches = {
        "absent": (None, "no search.json of mos-search \\(FileNotFoundError"),
        "list": ([], "no search.json of mos-search \\(TypeError"),
        "flops": ({"best": row, "front": [row], "compared": {}}, "other figures than loss and latency_ms"),
    }
    for name, (content, message) in searches.items():
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
        with pytest.raises(SystemExit, match=f"--search .*{name}: .*{message}"):
            quickstart_report.main([*arguments, "--search", str(tmp_path / name), f"largest={tmp_path}"])
    with pytest.raises(SystemExit, match="expected SUBNET=DIR"):
        quickstart_report.main([*arguments, "largest"])


def test_subwords_writes_a_fairseq_dictionary_without_special_symbols(tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for split in ("train", "valid", "test"):
        for language, word in (("en", "apple"), ("de", "Apfel")):
            lines = [f"{word} number {i} in the box\n" for i in range(30)]
            (text / f"{split}.{language}").write_text("".join(lines), encoding="utf-8")
    subwords.main(["--text", str(text), "--output", str(tmp_path / "spm"), "--vocab-size", "30"])
    pieces = [line.split(" ")[0] for line in (tmp_path / "spm" / "dict.txt").read_text("utf-8").splitlines()]
    assert len(pieces) == len(set(pieces)) == 28  # without <unk> and </s>
    assert not {"<s>", "</s>", "<unk>", "<pad>"} & set(pieces)
    encoded = (tmp_path / "spm" / "test.de").read_text("utf-8").splitlines()
    assert encoded[3].replace(" ", "").replace("▁", " ").strip() == "Apfel number 3 in the box"


def test_subwords_names_missing_files(tmp_path):
    with pytest.raises(SystemExit, match="lacks train.en"):
        subwords.main(["--text", str(tmp_path), "--output", str(tmp_path / "spm")])


@pytest.mark.parametrize("script", sorted(EXAMPLES.rglob("*.sh")), ids=lambda script: script.name)
def test_shell_scripts_parse(script):
    subprocess.run(["bash", "-n", script], check=True)


class Quickstart:
    """The script itself, with every program it starts replaced by one that writes down its name, and maybe a file."""

    def __init__(self, folder: Path) -> None:
        self.root, self.work, self.log = folder / "repository", folder / "work", folder / "log"
        (self.root / "examples").mkdir(parents=True)
        for name in ("mos_fairseq", "setup.py", "constraints.txt", *(f"examples/{f.name}" for f in EXAMPLES.iterdir())):
            (self.root / name).symlink_to(EXAMPLES.parent / name)
        self.script = self.root / "examples" / "quickstart.sh"
        tools = self.root / ".venv" / "bin"
        tools.mkdir(parents=True)
        makes = {
            "fairseq-preprocess": "mkdir -p data-bin; printf 'a 1\\nb 1\\n' >data-bin/dict.en.txt",
            "fairseq-train": "mkdir -p checkpoints; [ ! -e broken ]; echo trained >>checkpoints/checkpoint_best.pt",
            "fairseq-generate": "",
            "python": "",
            "mos-latency": "echo measured >>latency.jsonl",
            "mos-search": "mkdir -p search; touch search/best.yaml search/uniform.yaml",
            "mos-export": "touch best.pt",
            "mos-finetune": "mkdir -p finetuned; touch finetuned/finetuned.pt",
        }
        for name, command in makes.items():
            tool = tools / name
            lines = ["#!/bin/bash -e", f'echo "{name} $*" >>"{self.log}"', f'(cd "{self.work}" && {command or ":"})']
            tool.write_text("\n".join([*lines, f'echo "{name} 12.5 ms"', ""]))
            tool.chmod(0o755)

    def change(self, old: str, new: str) -> None:
        """Another setting."""
        content = self.script.read_text()
        assert old in content
        self.script.unlink(missing_ok=True)
        self.script.write_text(content.replace(old, new))

    def run(self, status: int = 0) -> list[str]:
        """The programs that it starts."""
        self.log.write_text("")
        environment = {**os.environ, "MOS_QUICKSTART_DIR": str(self.work)}
        environment.pop("PYTHON", None)
        # through a copy's path: the script finds the repository from its own place
        script = f'cd "{self.root}" && source examples/quickstart.sh'
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        self.out = done.stdout
        names = [line.split()[:2] for line in self.log.read_text().splitlines()]
        plain = ("fairseq-preprocess", "fairseq-train", "fairseq-generate", "mos-search", "mos-export", "mos-finetune")
        return [words[0] if words[0] in plain else " ".join(words) for words in names if words[1] != "-m"]


DATA = ["python examples/tools/embedded_corpus.py", "python examples/tools/subwords.py", "fairseq-preprocess"]
SUPERNET = ["fairseq-train", "mos-latency measure", "mos-latency fit", "mos-latency predict", "mos-search"]
SUPERNET += ["mos-export", "mos-finetune", "mos-latency measure", *["fairseq-generate"] * 5]
REPORT = ["python examples/tools/quickstart_report.py"]


def test_quickstart_runs_its_steps_in_order_and_once(tmp_path):
    quickstart = Quickstart(tmp_path)
    assert quickstart.run() == [*DATA, *SUPERNET, *REPORT]
    content = quickstart.log.read_text()
    assert "--budget 2.50 " in content and "finetuned.yaml=" in content
    assert content.count("--vocab-size 6 ") == 2 and "--constraint latency_ms<=2.50" in content
    assert quickstart.run() == REPORT
    assert "kept" not in quickstart.out


@pytest.mark.slow
def test_quickstart_keeps_what_other_settings_made(tmp_path):
    """A changed setting trains anew; old checkpoints and their results are moved aside, with a message."""
    quickstart = Quickstart(tmp_path)
    quickstart.run()
    made = {
        path: (quickstart.work / path).read_text()
        for path in ("checkpoints/checkpoint_best.pt", "latency.jsonl", "search/best.yaml", "best.pt")
    }
    quickstart.change("--max-update 2600", "--max-update 1300")
    assert quickstart.run() == [*SUPERNET, *REPORT]
    old = quickstart.work / "old-1"
    assert f"what was made before them is kept in {old}" in quickstart.out
    assert "kept aside: checkpoints" in quickstart.out
    assert {path: (old / path).read_text() for path in made} == made
    assert (quickstart.work / "checkpoints" / "checkpoint_best.pt").read_text() == "trained\n"
    assert not (old / "data-bin").exists()  # does not depend on it
    # a third setting spares both
    quickstart.change("--max-update 1300", "--max-update 1400")
    quickstart.run()
    assert sorted(path.name for path in quickstart.work.glob("old-*")) == ["old-1", "old-2"]
    assert {path: (old / path).read_text() for path in made} == made


def test_quickstart_goes_on_with_what_it_began(tmp_path):
    """An interrupted step of the same settings finds its files in place."""
    quickstart = Quickstart(tmp_path)
    quickstart.work.mkdir()
    (quickstart.work / "broken").touch()
    assert quickstart.run(status=1) == [*DATA, "fairseq-train"]
    (quickstart.work / "checkpoints" / "checkpoint_last.pt").touch()
    (quickstart.work / "broken").unlink()
    assert quickstart.run() == [*SUPERNET, *REPORT]
    assert (quickstart.work / "checkpoints" / "checkpoint_last.pt").exists()
    assert not list(quickstart.work.glob("old-*"))
