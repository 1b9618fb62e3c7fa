"""LibreOffice help: extraction of sentence pairs, and the uniform subnets that winners are compared with."""

from __future__ import annotations

from pathlib import Path

import extract
import numpy as np
import pytest
import uniform

from mos_fairseq.errors import InputError
from mos_fairseq.latency import Features, LatencyPredictor
from mos_fairseq.latency.predictor import fit_family
from mos_fairseq.search_space import SearchSpace, Subnet

ENGLISH = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>Page</title></head><body>
<h1 id="hd_id1"><a name="x"></a>Printing several small pages</h1>
<p id="par_id2" class="paragraph">Press <span class="switchinline"><span hidden="true" class="MAC">Command</span><span
hidden="true" id="default2">Ctrl</span></span><span class="keycode">+P</span> to print. The dialog opens &amp; waits,
e.g. for you.</p>
<p id="par_id3">Only in the English page stands this one.</p>
<p id="par_id4">It holds 12 pages of text.</p>
<p id="par_id5">=SUM(A1:B7)+(3*4)-[x] {y} 22</p>
<p id="par_id6">LibreOffice Writer Guide Two</p>
<p id="par_id7">First sentence here. Second sentence here.</p>
<p id="par_id8">Stands twice on the page.</p><p id="par_id8">Stands twice on the page.</p>
<p>No identifier at all here.</p>
</body></html>"""

GERMAN = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>Seite</title></head><body>
<h1 id="hd_id1"><a name="x"></a>Mehrere kleine Seiten drucken</h1>
<p id="par_id2" class="paragraph">Zum Drucken drücken Sie <span class="switchinline"><span hidden="true"
class="MAC">Befehl</span><span hidden="true" id="default2">Strg</span></span><span class="keycode">+P</span>.
Der Dialog öffnet&nbsp;sich &amp; wartet, z. B. auf Sie.</p>
<p id="par_id4">Es enthält 13 Seiten mit Text.</p>
<p id="par_id5">=SUMME(A1:B7)+(3*4)-[x] {y} 22</p>
<p id="par_id6">LibreOffice Writer Guide Two</p>
<p id="par_id7">Der erste Satz, und hier der zweite Satz.</p>
<p id="par_id8">Steht zweimal auf der Seite.</p>
</body></html>"""


def test_page_pairs():
    assert list(extract.page_pairs(ENGLISH, GERMAN)) == [
        ("Printing several small pages", "Mehrere kleine Seiten drucken"),
        ("Press Ctrl+P to print.", "Zum Drucken drücken Sie Strg+P."),
        ("The dialog opens & waits, e.g. for you.", "Der Dialog öffnet sich & wartet, z. B. auf Sie."),
        ("First sentence here. Second sentence here.", "Der erste Satz, und hier der zweite Satz."),
    ]


def test_command_line(tmp_path, capsys):
    for folder, page in (("en-US", ENGLISH), ("de", GERMAN)):
        (tmp_path / "help" / folder / "text" / "sub").mkdir(parents=True)
        (tmp_path / "help" / folder / "text" / "sub" / "page.html").write_text(page, encoding="utf-8")
    arguments = ["--help-dir", str(tmp_path / "help"), "--output", str(tmp_path / "out")]
    extract.main([*arguments, "--valid", "1", "--test", "1"])
    assert "2 train, 1 valid, 1 test pairs" in capsys.readouterr().out
    assert len((tmp_path / "out" / "train.de").read_text(encoding="utf-8").splitlines()) == 2
    with pytest.raises(SystemExit, match="no such folder"):
        extract.main([*arguments, "--target", "fr"])


SPACE = SearchSpace.from_spec(str(Path(uniform.__file__).with_name("search_space.yaml")))


def test_uniform_subnet_as_fast_as_the_winner():
    by_size = {uniform.parameters(subnet): subnet for subnet in uniform.uniform_subnets(SPACE)}
    subnets = [by_size[size] for size in sorted(by_size)[:5]]
    times = [96.0, 104.0, 94.0, 120.0, 106.0]
    assert uniform.choose(subnets, times, 100.0, budget=101.0) == subnets[1]  # not the larger one of 94 ms
    assert uniform.choose(subnets, times, 95.0, budget=101.0) == subnets[2]
    assert uniform.choose(subnets, times, 113.0, budget=113.0) == subnets[4]  # none within 5 %: the nearest below
    assert uniform.choose(subnets, times, 113.0, budget=105.0) == subnets[1]
    assert uniform.choose(subnets, times, 50.0, budget=60.0) is None


def test_of_equals_the_nearest_to_the_winner():
    size = uniform.parameters(SPACE.largest())
    equals = [s for s in uniform.uniform_subnets(SPACE) if uniform.parameters(s) == size][:2]
    assert len(equals) == 2
    for times, expected in (([103.0, 99.0], 1), ([100.5, 98.0], 0)):
        assert uniform.choose(equals, times, 100.0, budget=110.0) == equals[expected]


def test_uniform_command_line(tmp_path, capsys):
    drawn = [SPACE.sample_subnet("uniform", i) for i in range(40)]
    latency_ms = np.array([10 + 1e-5 * uniform.parameters(subnet) for subnet in drawn])
    fitted = fit_family("ridge", Features.of_subnets(drawn, SPACE), latency_ms, seed=1)
    predictor = LatencyPredictor("ridge", SPACE, {}, fitted.ridge, None)
    predictor.save(tmp_path / "predictor.json")
    drawn[0].save(tmp_path / "winner.yaml")
    winner_ms = float(predictor.predict([drawn[0]])[0])

    def command(budget: object, winner: object) -> None:
        uniform.main(list(map(str, (tmp_path / "predictor.json", budget, winner, tmp_path / "uniform.yaml"))))

    command(winner_ms, tmp_path / "winner.yaml")
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'uniform.yaml'}: ")
    chosen = Subnet.load(tmp_path / "uniform.yaml")
    subnets = uniform.uniform_subnets(SPACE)
    times = predictor.predict(subnets)
    near = [s for s, ms in zip(subnets, times, strict=True) if abs(ms / winner_ms - 1) <= 0.05]
    assert chosen in near and uniform.parameters(chosen) == max(map(uniform.parameters, near))
    command(winner_ms, winner_ms)
    assert Subnet.load(tmp_path / "uniform.yaml") == chosen
    command(winner_ms, 1.0)  # nothing near it, but much within the budget
    fastest = predictor.predict([Subnet.load(tmp_path / "uniform.yaml")])[0]
    assert fastest == pytest.approx(max(times[times <= winner_ms]), rel=1e-9)  # of one subnet, and of many at once
    with pytest.raises(SystemExit, match="budget 1.0 ms: the fastest uniform subnet takes"):
        command(1.0, 1.0)
    with pytest.raises(SystemExit, match="budget nan: allowed are positive numbers, of milliseconds"):
        command("nan", 1.0)
    with pytest.raises(InputError, match=r"absent\.yaml"):
        command(1.0, tmp_path / "absent.yaml")
