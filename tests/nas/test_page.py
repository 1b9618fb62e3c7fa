"""The search's page in a real browser: nothing is loaded from elsewhere, and the pointer shows a subnet."""

from __future__ import annotations

import shutil

import pytest

from mos_fairseq.cost import subnet_cost
from mos_fairseq.nas import results as results_module
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


@pytest.fixture
def page(tmp_path):
    rows = [row(index) for index in range(7)]
    results = {"best": rows[3], "front": rows[:4], "judged": 7, "objective": "loss", "cost": "latency_ms"}
    results |= {"compared": {"uniform": rows[5]}, "budgets": {"latency_ms": 13.5}}
    add_measured(results, {Subnet.from_dict(rows[2]["architecture"]).key: 12.75})
    write_results(tmp_path, results, rows)
    assert Subnet.load(tmp_path / "uniform.yaml") == Subnet.from_dict(rows[5]["architecture"])
    return tmp_path / "front.html", rows


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_pointer_shows_architecture_latencies_and_cost(page):
    from playwright.sync_api import sync_playwright

    path, rows = page
    requests, errors = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        view = browser.new_page(viewport={"width": 1000, "height": 600})
        view.on("request", lambda request: requests.append(request.url))
        view.on("pageerror", lambda error: errors.append(str(error)))
        view.goto(path.as_uri())
        view.wait_for_selector(".scatterlayer .trace")
        traces = view.locator(".scatterlayer .trace")
        assert [traces.nth(i).locator(".point").count() for i in range(traces.count())] == [3, 1, 4, 1]
        box = traces.nth(2).locator(".point").nth(2).bounding_box()
        view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        view.wait_for_selector(".hoverlayer .hovertext")
        shown = view.locator(".hoverlayer .hovertext").text_content()
        lines = view.evaluate("document.getElementById('front').layout.shapes.map(line => [line.x0, line.x1])")
        assert lines == [[13.5, 13.5]]
        assert "budget 13.5" in view.locator(".annotation-text").all_text_contents()
        browser.close()
    wanted = ["loss 4.3333", "predicted latency 12.00 ms", "measured latency 12.75 ms", f"{rows[2]['params']:,.0f} "]
    wanted += Subnet.from_dict(rows[2]["architecture"]).summary().split(" | ")
    assert not [text for text in wanted if text not in shown]
    assert requests == [path.as_uri()] and not errors


def test_the_page_is_the_same_every_time(page, tmp_path):
    path, rows = page
    before = path.read_bytes()
    results = {"best": rows[3], "front": rows[:4], "judged": 7, "objective": "loss", "cost": "latency_ms"}
    results |= {"compared": {"uniform": rows[5]}, "budgets": {"latency_ms": 13.5}}
    add_measured(results, {Subnet.from_dict(rows[2]["architecture"]).key: 12.75})
    write_results(tmp_path, results, rows)
    assert path.read_bytes() == before


def test_text_cannot_end_the_script_that_holds_it(tmp_path, monkeypatch):
    """Only numbers are shown; should a text ever get there, it stays one."""
    monkeypatch.setattr(results_module, "describe", lambda *_: "</script><script>alert(1)</script>")
    rows = [row(index) for index in range(3)]
    results = {"best": rows[0], "front": rows[:2], "judged": 3, "objective": "loss", "cost": "latency_ms"}
    write_results(tmp_path, results, rows)
    page = (tmp_path / "front.html").read_text(encoding="utf-8")
    assert "alert(1)" in page and "<script>alert(1)" not in page
