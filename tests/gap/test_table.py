"""Tables of scores: accepted and refused files, and the report's figures for them."""

import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.gap import Row, gap_of, read_table, report, write_table
from mos_fairseq.gap.report import gap_table, plot_finetuning, plot_gap, score_table, summarise

CSV = """supernet,subnet,inherited,standalone,extra_updates,note
none,r1,25.8,27.0,400,
none,r2,23.5,24.9,,long
neuron,r1,25.1,27.0,0,
"""
JSONL = '{"subnet": "r1", "inherited": 25.8, "standalone": 27, "metric": "chrf", "finetuned": {"50": 26}}\n'


def test_csv(tmp_path):
    (tmp_path / "scores.csv").write_text(CSV, encoding="utf-8-sig")  # as spreadsheets write it
    rows = read_table(tmp_path / "scores.csv")
    assert rows[0] == Row("r1", 25.8, 27.0, "none", extra_updates=400)
    assert rows[1] == Row("r2", 23.5, 24.9, "none", details={"note": "long"})
    assert [row.extra_updates for row in rows] == [400, None, 0]


def test_json_lines_and_back(tmp_path):
    (tmp_path / "scores.jsonl").write_text(JSONL)
    rows = read_table(tmp_path / "scores.jsonl")
    assert rows == [Row("r1", 25.8, 27.0, metric="chrf", finetuned={50: 26.0})]
    write_table(rows, tmp_path / "again.jsonl")
    assert read_table(tmp_path / "again.jsonl") == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "subnet,inherited\nr1,2\n", "row 1 lacks standalone; needed are subnet, inherited, standalone"),
        ("x.csv", "subnet,inherited,standalone\n", "holds no rows"),
        ("x.csv", "subnet,inherited,standalone\nr1,2,\n", "row 1 lacks standalone"),
        ("x.csv", "subnet,inherited,standalone\nr1,2,fast\n", "row 1: standalone is fast"),
        ("x.csv", "subnet,inherited,standalone\nr1,nan,3\n", "row 1: inherited is nan"),
        ("x.csv", "subnet,inherited,standalone,extra_updates\nr1,1,3,-4\n", "number of updates is -4"),
        ("x.csv", "subnet,inherited,standalone\nr1,2,3\nr1,4,5\n", "subnet r1 of supernet has two rows of bleu"),
        ("x.csv", "subnet,inherited,standalone\n\xe9,2,3\n", "not a UTF-8 text file"),
        ("x.jsonl", '{"subnet": "r1"}\n', "row 1 lacks inherited, standalone"),
        ("x.jsonl", '{"subnet": "r1", "inherited": true, "standalone": 3}\n', "inherited is True"),
        ("x.jsonl", '{"subnet": "r1", "inherited": 3, "standalone": 3, "finetuned": 4}\n', "finetuned is 4"),
        ("x.jsonl", f'{{"subnet": "r1", "inherited": 1{"0" * 400}, "standalone": 3}}\n', "inherited is 1000"),
        ("x.jsonl", '{"subnet": "r1", "inherited": 3, "standalone": 3, "compared_with": ["a"]}\n', "compared_with is"),
        ("x.jsonl", '{"subnet": "r1", "inherited": 3, "standalone": 3, "note": [1e999]}\n', r"note is \[inf\]"),
        ("x.jsonl", "r1 3 4\n", "line 1 is not valid JSON"),
    ],
)
def test_bad_tables(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=message) as error:
        read_table(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_no_file(tmp_path):
    for name in ("none.csv", "none.jsonl"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            read_table(tmp_path / name)


def test_summary_and_tables(tmp_path):
    (tmp_path / "scores.csv").write_text(CSV)
    rows = read_table(tmp_path / "scores.csv")
    none, neuron = summarise(rows)
    assert none["mae"] == gap_of([25.8, 23.5], [27.0, 24.9]).mae == pytest.approx(1.3)
    assert (none["supernet"], none["subnets"], none["reached_by_finetuning"]) == ("none", 2, 1)
    assert (none["mean_extra_updates"], neuron["mean_extra_updates"]) == (400, 0)
    assert score_table(rows, "bleu") == [
        ["bleu", "alone", "none", "neuron"],
        ["r1", "27.00", "25.80", "25.10"],
        ["r2", "24.90", "23.50", "-"],
    ]
    assert gap_table([none, neuron], "bleu")[1:] == [
        ["none", "2", "1.300", "-1.300", "0.141", "1.000", "1.000", "1", "400"],
        ["neuron", "1", "1.900", "-1.900", "-", "-", "-", "1", "0"],
    ]
    # standalone scores that differ between supernets appear side by side
    others = [*rows[:2], Row("r1", 25.1, 27.5, "neuron")]
    assert score_table(others, "bleu")[:2] == [
        ["bleu", "none", "alone", "neuron", "alone"],
        ["r1", "25.80", "27.00", "25.10", "27.50"],
    ]
    plot_gap([*rows, Row("r1", 2.0, 2.0, metric="loss")], tmp_path / "gap.png")
    assert (tmp_path / "gap.png").read_bytes().startswith(b"\x89PNG")


def test_only_the_main_metric_is_reached():
    """Its standalone score ends fine-tuning; that of the loss may be reached after it."""
    bleu = Row("r1", 25.0, 27.0, "none", finetuned={50: 26.0}), Row("r1", 24.0, 27.0, "mos", "bleu", {50: 27.0}, 50)
    loss = Row("r1", 3.0, 2.5, "none", "loss", {50: 2.0}), Row("r1", 3.0, 2.5, "mos", "loss", {50: 2.75})
    found = {(row["metric"], row["supernet"]): row.get("reached_by_finetuning") for row in summarise([*bleu, *loss])}
    assert found == {("bleu", "none"): 0, ("bleu", "mos"): 1, ("loss", "none"): None, ("loss", "mos"): None}


def test_scores_without_finite_statistics_are_refused():
    rows = [Row("r1", 1e308, -1e308), Row("r2", -1e308, 1e308)]
    with pytest.raises(InputError, match=r"supernet: bleu goes to 1e\+308: allowed are scores up to 1e\+150$"):
        summarise(rows)


def test_plot_of_finetuning(tmp_path, monkeypatch):
    """A line for each fine-tuned architecture, from its inherited score on, less the standalone one."""
    rows = [Row("r1", 25.0, 27.0, "none", finetuned={200: 27.5, 100: 26.0}), Row("r2", 20.0, 24.0, "none")]
    rows += [Row("r1", 26.0, 27.0, "neuron", finetuned={100: 27.0}), Row("r1", 3.0, 2.5, "none", "loss", {100: 2.75})]
    figures = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: figures.append(figure))
    plot_finetuning(rows, tmp_path / "x.png")
    bleu, loss = figures[0].axes
    lines = [(line.get_label(), line.get_xdata(), line.get_ydata()) for line in bleu.lines[1:]]
    assert [(name, [*x], [*y]) for name, x, y in lines] == [
        ("none", [0, 100, 200], [-2.0, -1.0, 0.5]),
        ("neuron", [0, 100], [-1.0, 0.0]),
    ]
    assert [*loss.lines[1].get_ydata()] == [0.5, 0.25] and "bits per token" in loss.get_ylabel()
    monkeypatch.undo()
    plot_finetuning(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
