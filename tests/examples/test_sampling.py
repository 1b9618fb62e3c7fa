"""The study of training recipes: its table of BLEU, and refused input."""

import json
import os
import subprocess

import architectures
import differences
import evidence
import numpy as np
import plot
import pytest
import scores

from mos_fairseq.cost import subnet_cost
from mos_fairseq.search_space import SearchSpace

from .conftest import EXAMPLES

BLEU = {"largest": 80.0, "random:3": 70.0, "random:5": 75.5, "random:7": 66.0, "smallest": 68.0}


@pytest.fixture
def measured(tmp_path):
    """Results of run.sh: two seeds of one recipe, and only the first subnet of another."""
    for name, seed, more, subnets in (("one", 1, 0, BLEU), ("one", 2, 1, BLEU), ("two-b", 1, 5, ["largest"])):
        for subnet in subnets:
            stem = f"translations-{name}-{seed}-{subnet.replace(':', '-')}"
            log = f"Generate test with beam=4: BLEU = {BLEU[subnet] + more:.2f} 90.1/80.2 (BP = 1.000)"
            (tmp_path / f"{stem}.log").write_text(log + "\n")
            (tmp_path / f"{stem}.done").touch()
    (tmp_path / "translations-one-3-largest.log").write_text("half of it")  # not done yet
    return tmp_path


def test_rows_and_table(measured, capsys):
    scores.main([str(measured)])
    assert capsys.readouterr().out.splitlines() == [
        "| recipe | seeds | largest | random:3 | random:5 | random:7 | smallest | spread |",
        "|---|---|---|---|---|---|---|---|",
        "| one | 2 | 80.5 ± 0.7 | 70.5 ± 0.7 | 76.0 ± 0.7 | 66.5 ± 0.7 | 68.5 ± 0.7 | 9.5 |",
    ]
    rows = json.loads((measured / "scores.json").read_text())
    assert len(rows) == 11
    assert {"recipe": "two-b", "seed": 1, "subnet": "largest", "bleu": 85.0} in rows


def test_losses_where_they_were_computed(measured, capsys):
    for seed in (1, 2):
        losses = {f"test_nll_loss_{name.replace(':', '')}": f"{bleu / 100 + seed:.3f}" for name, bleu in BLEU.items()}
        log = f"INFO | test | {json.dumps({'test_loss': '1.0', **losses})}\nthe end\n"
        (measured / f"losses-one-{seed}.log").write_text(log)
    (measured / "losses-one-1.done").touch()
    assert "loss" not in scores.read_rows(measured)[-1]
    (measured / "losses-one-2.done").touch()
    scores.main([str(measured)])
    assert capsys.readouterr().out.splitlines()[-1] == (
        "| one | 2 | 2.300 ± 0.707 | 2.200 ± 0.707 | 2.255 ± 0.707 | 2.160 ± 0.707 | 2.180 ± 0.707 | 0.095 |"
    )


def test_the_plot(measured, capsys):
    scores.main([str(measured)])
    rows = json.loads((measured / "scores.json").read_text())
    space = SearchSpace.from_spec("tiny")
    found = plot.curves(rows, space)
    assert list(found) == ["one (2 seeds)"]
    sizes, means, deviations = zip(*found["one (2 seeds)"], strict=True)
    assert sizes == tuple(sorted(sizes)) and (means[0], means[-1]) == (68.5, 80.5)
    assert sizes[-1] == subnet_cost(space.largest()).flops_without_output_projection / 1e6
    assert deviations == pytest.approx([0.5**0.5] * 5)
    plot.main([str(measured / "scores.json"), "tiny", str(measured / "scores.png")])
    assert (measured / "scores.png").read_bytes().startswith(b"\x89PNG")
    (measured / "others.json").write_text(json.dumps([rows[0] | {"subnet": "r1"}]))
    with pytest.raises(SystemExit, match=r"^error: subnet .*r1\.yaml: "):
        plot.main([str(measured / "others.json"), "tiny", str(measured / "others.png")])
    assert not (measured / "others.png").exists()


def test_rows_of_several_days(measured, tmp_path, capsys):
    """A recipe that is measured again replaces its old row."""
    kept = tmp_path / "kept.json"
    old = {"recipe": "one", "seed": 1, "subnet": "largest", "bleu": 1.0}
    other = {"recipe": "other", "seed": 3, "subnet": "r1", "bleu": 2.0}
    kept.write_text(json.dumps([old, other]))
    scores.main([str(measured), str(kept)])
    rows = json.loads(kept.read_text())
    assert old not in rows and other in rows and len(rows) == 12
    assert old | {"bleu": 80.0} in rows and "| r1 |" in capsys.readouterr().out.splitlines()[0]


def test_a_log_without_bleu(measured):
    (measured / "translations-one-1-largest.log").write_text("error\n")
    with pytest.raises(SystemExit, match="translations-one-1-largest.log: fairseq-generate printed no BLEU"):
        scores.read_rows(measured)


@pytest.mark.parametrize(
    ("arguments", "recipes", "status", "told"),
    [
        ([], "", 2, "run.sh embedded WORK_DIR"),
        (["embedded"], "", 2, "run.sh embedded WORK_DIR"),
        (["libreoffice", "w"], "", 2, "run.sh libreoffice WORK_DIR DATA"),
        (["embedded", "w", "x"], "", 1, "SEED is x"),
        (["libreoffice", "w", "nowhere"], "", 1, "DATA is nowhere: no such folder"),
        (["embedded", "w"], "sandwich best", 1, "MOS_RECIPES has best: allowed are alternate"),
    ],
)
def test_bad_arguments(tmp_path, arguments, recipes, status, told):
    command = ["bash", str(EXAMPLES / "studies" / "sampling" / "run.sh"), *arguments]
    env = {**os.environ, "MOS_RECIPES": recipes}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (status, []) and told in done.stderr


# --- against another recipe ---


def test_recipes_are_compared_by_seed(tmp_path, capsys):
    rows = []
    found = [("b", 1, 10), ("b", 2, 20), ("b", 3, 90), ("a", 1, 12), ("a", 2, 24), ("a", 4, 0), ("c", 2, 19)]
    for recipe, seed, bleu in found:
        for subnet, more in [("smallest", 0), ("r1", 1), ("largest", 2)]:
            rows.append({"recipe": recipe, "seed": seed, "subnet": subnet, "bleu": bleu + more})
    rows[-1] |= {"loss": 1.0}  # one subnet's alone tells nothing
    rows = [row for row in rows if (row["recipe"], row["seed"], row["subnet"]) != ("a", 4, "r1")]
    (tmp_path / "rows.json").write_text(json.dumps(rows[::-1]))
    differences.main([str(tmp_path / "rows.json"), "b", "c", "a"])
    # of two differences the interval is 12.706 standard errors wide
    assert capsys.readouterr().out.splitlines() == [
        "| bleu, minus b | seeds | largest | r1 | smallest | mean |",
        "|---|---|---|---|---|---|",
        "| c | 1 | -1.0 | -1.0 | -1.0 | -1.0 |",
        "| a | 2 | +3.0 ± 12.7 | +3.0 ± 12.7 | +3.0 ± 12.7 | +3.0 ± 12.7 |",
    ]
    assert differences.interval([1.0, 2.0, 4.0]) == pytest.approx(4.303 * (7 / 3) ** 0.5 / 3**0.5, abs=1e-3)
    with pytest.raises(SystemExit, match=r"rows.json has no recipe d: it has a, b, c$"):
        differences.main([str(tmp_path / "rows.json"), "b", "d"])
    apart = [row for row in rows if (row["recipe"] == "b") == (row["seed"] == 3)]
    (tmp_path / "rows.json").write_text(json.dumps(apart))
    with pytest.raises(SystemExit, match="no seed has b and another of these recipes with all subnets"):
        differences.main([str(tmp_path / "rows.json"), "b", "a"])
    with pytest.raises(SystemExit, match="nothing: no rows of scores.py"):
        differences.main([str(tmp_path / "nothing"), "b", "a"])


# --- against training alone ---


@pytest.mark.slow
def test_architectures_span_the_costs():
    space = SearchSpace.from_spec("tiny")
    found = architectures.chosen(space, 12)
    costs = [architectures.cost(subnet) for subnet in found]
    assert (found[0], found[-1]) == (space.smallest(), space.largest()) and len({subnet.key for subnet in found}) == 12
    steps = np.diff(costs)
    assert steps.min() > 0 and steps.max() < 1.5 * steps.mean()
    assert architectures.chosen(space, 12) == found


def report(path, shift: float, scale: float) -> str:
    """Six architectures with standalone scores 0 to 5; one supernet's scores are shifted, the other's compressed."""
    rows = []
    for index, name in enumerate(["a1", "a2", "a3", "a4", "a5", "largest"]):
        common = {"metric": "bleu", "subnet": name, "standalone": float(index)}
        rows.append(common | {"supernet": "shifted", "inherited": index + shift})
        rows.append(common | {"supernet": "flat", "inherited": scale * index})
    path.write_text(json.dumps({"scores": rows[::-1]}))
    return str(path)


@pytest.mark.slow
def test_evidence(tmp_path):
    found = evidence.read([report(tmp_path / "1.json", 1, 0.5), report(tmp_path / "2.json", 3, -0.5)])
    assert found["bleu", "shifted"].shape == (2, 2, 6)
    figures, low, high = evidence.intervals(found["bleu", "shifted"], largest=5)
    assert figures == pytest.approx([2, 2, 1, 1]) and (low[:2] == 1).all() and (high[:2] == 3).all()
    # over both seeds the other is the same for all architectures: nothing is ranked
    figures, _, _ = evidence.intervals(found["bleu", "flat"], largest=5)
    assert figures[:3] == pytest.approx([-2.5, 2.5, 0]) and np.isnan(figures[3])
    assert figures_of(0.5) == pytest.approx([-1.25, 1.25, 0.5, 1])
    lines = evidence.table(found).splitlines()
    assert len(lines) == 4
    (shifted,) = (line for line in lines if line.startswith("| shifted"))
    assert shifted.startswith("| shifted | 2 | 2.5 | 4.5 | 2.0 (1.0 to 3.0) | 2.0 (1.0 to 3.0) | 1.00 (")


def figures_of(scale: float) -> np.ndarray:
    alone = np.arange(6.0)
    return evidence.figures(scale * alone, alone, largest=5)


def test_alone_needs_supernets(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "architectures.done").touch()  # tested above
    command = ["bash", EXAMPLES / "studies" / "sampling" / "alone.sh", "embedded", tmp_path / "work", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and done.stderr.endswith("work has no supernet of seed 3: run.sh trains them\n")
