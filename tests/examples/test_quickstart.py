"""The quickstart's report, its subword step and its shell scripts."""

from __future__ import annotations

import os
import subprocess

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


def test_report_with_latencies(tmp_path, capsys):
    """Two subnets are measured: then BLEU stands against latency; a YAML file is shown by its name."""
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
    quickstart_report.plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "generate-test.txt").write_text("D-0\t-0.1\tEins.\n")
    found = quickstart_report.score("runs/search/best.yaml", tmp_path / "out", ["Eins."], known(5, 2.25, 2.5))
    assert (found.subnet, found.known) == ("best", known(5, 2.25, 2.5))


def test_report_says_what_is_missing(tmp_path):
    (tmp_path / "test.de").write_text("Eins.\n", encoding="utf-8")
    arguments = ["--reference", str(tmp_path / "test.de"), "--plot", str(tmp_path / "p.png")]
    with pytest.raises(SystemExit, match="generate-test.txt is missing"):
        quickstart_report.main([*arguments, f"largest={tmp_path}"])
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


def test_quickstart_runs_its_steps_in_order_and_once(tmp_path):
    """The script itself, with every program it starts replaced by one that only writes down its name."""
    root, tools = tmp_path / "repository", tmp_path / "repository" / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("examples", "mos_fairseq", "setup.py", "constraints.txt"):
        (root / name).symlink_to(EXAMPLES.parent / name)
    log = tmp_path / "log"
    programs = ("preprocess", "train", "generate")
    for name in ("python", "mos-latency", "mos-search", "mos-export", *(f"fairseq-{name}" for name in programs)):
        tool = tools / name
        tool.write_text(f'#!/bin/bash\necho "{name} $*" >>"{log}"\necho "{name} 12.5 ms"\n')
        tool.chmod(0o755)
    folder = '"$MOS_QUICKSTART_DIR/data-bin"'
    dictionary = f"mkdir -p {folder}; printf 'a 1\\nb 1\\n' >{folder}/dict.en.txt"
    with open(tools / "fairseq-preprocess", "a") as tool:
        tool.write(dictionary + "\n")
    environment = {**os.environ, "MOS_QUICKSTART_DIR": str(tmp_path / "work")}
    environment.pop("PYTHON", None)

    def run() -> list[str]:
        log.write_text("")
        # through a copy's path: the script finds the repository from its own place
        script = f'cd "{root}" && source examples/quickstart.sh'
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        names = [line.split()[:2] for line in log.read_text().splitlines()]
        plain = ("fairseq-preprocess", "fairseq-train", "fairseq-generate", "mos-search", "mos-export")
        return [words[0] if words[0] in plain else " ".join(words) for words in names if words[1] != "-m"]

    steps = ["python examples/embedded_corpus.py", "python examples/subwords.py", "fairseq-preprocess", "fairseq-train"]
    steps += ["mos-latency measure", "mos-latency fit", "mos-latency predict", "mos-search", "mos-export"]
    steps += ["mos-latency measure", *["fairseq-generate"] * 6]
    report = "python examples/quickstart_report.py"
    assert run() == [*steps, report]
    content = log.read_text()
    assert content.count("--vocab-size 6 ") == 2 and "--constraint latency_ms<=2.50" in content
    assert run() == [report]
