"""The search's page in a real browser: nothing is loaded from elsewhere, and the pointer shows a subnet."""

from __future__ import annotations

import shutil

import pytest

from mos_fairseq.cost import subnet_cost
from mos_fairseq.nas import page as page_module
from mos_fairseq.nas.results import add_measured, write_results
from mos_fairseq.search_space import Subnet
from tests.helpers import small_space

SPACE = small_space()
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def row(index: int) -> dict:
    subnet = SPACE.sample_subnet("page", index)
    costs = {"latency_ms": 10.0 + index, "params": float(subnet_cost(subnet).params_without_embeddings), "flops": None}
    return {"loss": 5 - index / 3} | costs | {"architecture": subnet.to_dict()}


def results_of(rows: list[dict]) -> dict:
    """Rows 0, 5 and 6 miss the budget of parameters; after calibration, row 2 is better than 3."""
    compared = {"uniform": rows[5], "smallest": rows[0], "largest": rows[6]}
    best = rows[2] | {"calibrated": 3.9}
    results = {"best": best, "front": rows[:4], "within_budgets": 7, "objective": "loss", "cost": "latency_ms"}
    results |= {
        "algorithm_best": best,
        "compared": compared,
        "budgets": {"latency_ms": 13.5, "params": 17_500.0},
        "calibrated": [best],
    }
    add_measured(results, {Subnet.from_dict(rows[2]["architecture"]).key: 12.75})
    return results


@pytest.fixture
def page(tmp_path):
    rows = [row(index) for index in range(7)]
    results = results_of(rows)
    write_results(tmp_path, results, rows)
    assert Subnet.load(tmp_path / "uniform.yaml") == Subnet.from_dict(rows[5]["architecture"])
    return tmp_path / "front.html", rows


@pytest.fixture
def view(page):
    """The page in a browser: (the browser's page, the rows); nothing is loaded from elsewhere, and no script fails."""
    from playwright.sync_api import sync_playwright

    path, rows = page
    requests, errors = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        view = browser.new_page(viewport={"width": 1000, "height": 900})
        view.set_default_timeout(120_000)  # of a machine with other work
        view.on("request", lambda request: requests.append(request.url))
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.goto(path.as_uri())
        view.wait_for_selector(".scatterlayer .trace")
        yield view, rows
        browser.close()
    assert [url for url in requests if not url.startswith("blob:")] == [
        path.as_uri(),
        path.with_name("plotly.min.js").as_uri(),
    ]
    assert not errors


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(view, tmp_path):
    view, rows = view
    traces = view.locator(".scatterlayer .trace")
    assert [traces.nth(i).locator(".point").count() for i in range(traces.count())] == [3, 1, 4, 1]
    box = traces.nth(2).locator(".point").nth(2).bounding_box()
    view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    view.wait_for_selector(".hoverlayer .hovertext")
    shown = view.locator(".hoverlayer .hovertext").text_content()
    wanted = ["loss 4.3333", "predicted latency 12.00 ms", "measured latency 12.75 ms", f"{rows[2]['params']:,.0f} "]
    wanted += Subnet.from_dict(rows[2]["architecture"]).summary().split(" | ")
    assert not [text for text in wanted if text not in shown]

    def table() -> dict[str, str]:
        cells = [line.locator("td").all_text_contents() for line in view.locator("#rows tr").all()]
        return {name: loss for _, name, loss, *_ in cells}

    def budget_line() -> float:
        return view.evaluate("document.getElementById('front').layout.shapes[0].x0")

    # the budgets are the search's, and the best is its best
    shown = view.locator("#limit").text_content()
    assert budget_line() == 13.5 and "13.50" in shown and "parameters ≤ 17,500" in shown
    found = table()
    assert (found["best (best.yaml)"], found["smallest"], found["largest"]) == ("4.3333", "5.0000", "3.0000")
    assert "after calibration (loss 3.9000)" in view.locator("#note").text_content()
    # the slider's keys: to the left end, where only the cheapest is left, which has too many parameters, as the largest
    view.locator("#budget").focus()
    view.keyboard.press("Home")
    assert budget_line() == 10 and [*table()] == ["smallest", "largest"]
    view.keyboard.press("End")
    assert budget_line() == 16 and table()["best within the budgets"] == "4.0000"
    # the selected subnet's YAML is a file of that subnet
    view.locator("#row-smallest").check()
    with view.expect_download() as download:
        view.locator("#save").click()
    download.value.save_as(tmp_path / "saved.yaml")
    assert download.value.suggested_filename == "smallest.yaml"
    assert Subnet.load(tmp_path / "saved.yaml") == Subnet.from_dict(rows[0]["architecture"])
    assert "--subnet smallest.yaml" in view.locator("#command").text_content()
    background = "getComputedStyle(document.body).backgroundColor"
    light = view.evaluate(background)
    view.locator("#theme").click()
    assert view.evaluate(background) != light


@pytest.mark.slow
def test_the_page_is_small(page):
    assert page[0].stat().st_size < 100_000 and page[0].with_name("plotly.min.js").stat().st_size > 1_000_000


@pytest.mark.slow
def test_the_page_is_the_same_every_time(page, tmp_path):
    path, rows = page
    before = path.read_bytes()
    write_results(tmp_path, results_of(rows), rows)
    assert path.read_bytes() == before


def test_text_cannot_end_the_script_that_holds_it(tmp_path, monkeypatch):
    """Only numbers are shown; should a text ever get there, it stays one."""
    monkeypatch.setattr(page_module, "describe", lambda *_: "</script><script>alert(1)</script>")
    rows = [row(index) for index in range(3)]
    results = {"best": rows[0], "front": rows[:2], "within_budgets": 3, "objective": "loss", "cost": "latency_ms"}
    write_results(tmp_path, results, rows)
    page = (tmp_path / "front.html").read_text(encoding="utf-8")
    assert "alert(1)" in page and "<script>alert(1)" not in page
