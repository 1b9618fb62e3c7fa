"""Learning searches end to end: their output, judgements and files, and refused options."""

from __future__ import annotations

import json
import re

import pytest

from mos_fairseq.search_space import SearchSpace, Subnet
from tests.spaces import EVEN_SPACE

from .test_search import params, same

pytestmark = pytest.mark.slow

LINAS = ["--algorithm", "linas", "--population-size", 12, "--iterations", 2, "--inner-evaluations", 200]


def search(commands, joined, supernet, output, *options: object, **kwargs):
    path = ["--path", supernet[0] / "checkpoint_last.pt", "--output", output, "--cache", output / "cache"]
    return commands.fork("mos-search", joined, *path, *options, threads=1, **kwargs)


def results_of(output) -> dict:
    return json.loads((output / "search.json").read_text())


def judged_keys(output) -> list[str]:
    (cache,) = (output / "cache").iterdir()
    return [json.loads(line)["key"] for line in cache.read_text().splitlines()]


@pytest.fixture(scope="module")
def budget() -> int:
    space = SearchSpace.from_dict(EVEN_SPACE)
    return sum(params(subnet.to_dict()) for subnet in (space.largest(), space.smallest())) // 2


def test_linas(commands, joined, supernet, tmp_path, budget):
    limit = ["--constraint", f"params_without_embeddings<={budget}"]
    done = search(commands, joined, supernet, tmp_path / "one", *LINAS, *limit)
    results = results_of(tmp_path / "one")
    lines = re.findall(r"^batch (\d): (\d+) judged, best ([\d.]+); \w+ predicted the batch with .*$", done.out, re.M)
    assert [(int(batch), int(judged)) for batch, judged, _ in lines] == [(1, 24), (2, 36)]
    assert float(lines[-1][2]) == pytest.approx(results["best"]["loss"], abs=1e-4) and results["judged"] == 36
    keys = judged_keys(tmp_path / "one")
    assert len(keys) == len(set(keys)) and Subnet.from_dict(results["best"]["architecture"]).key in keys[:36]
    assert all(params(json.loads(key)) <= budget for key in keys[:36])
    # interrupted in its second batch, it goes on to the same
    (cache,) = (tmp_path / "one" / "cache").iterdir()
    begun = tmp_path / "two" / "cache" / cache.name
    begun.parent.mkdir(parents=True)
    begun.write_text("".join(cache.read_text().splitlines(keepends=True)[:17]))
    search(commands, joined, supernet, tmp_path / "two", *LINAS, *limit)
    assert same(tmp_path / "one", tmp_path / "two") and judged_keys(tmp_path / "two") == keys
    front = [*LINAS, "--inner-search", "nsga2", "--cost", "params_without_embeddings", "--json"]
    found = json.loads(search(commands, joined, supernet, tmp_path / "front", *front).out)
    assert [batch["judged"] for batch in found["rounds"]] == [24, 36] and found["judged"] == 36


def test_asng(commands, joined, supernet, tmp_path, budget):
    options = ["--algorithm", "asng", "--iterations", 12, "--constraint", f"params_without_embeddings<={budget}"]
    search(commands, joined, supernet, tmp_path, *options)
    results, keys = results_of(tmp_path), judged_keys(tmp_path)
    assert len(keys) == len(set(keys)) and 10 <= results["judged"] <= 25
    assert all(params(json.loads(key)) <= budget for key in keys[: results["judged"]])


KEYS = "params_without_embeddings,flops_without_output_projection"


def test_several_objectives_and_seeds_from_another_search(commands, joined, supernet, tmp_path, budget):
    several = ["--algorithm", "nsga2", "--population-size", 8, "--iterations", 3, "--cost", KEYS]
    search(commands, joined, supernet, tmp_path / "one", *several)
    results, page = results_of(tmp_path / "one"), (tmp_path / "one" / "front.html").read_text()
    assert (results["cost"], ",".join(results["costs"])) == (KEYS.split(",")[0], KEYS) and len(results["front"]) > 2
    assert 'id="parallel"' in page and "FLOPs without output projection" in page.split('id="parallel"')[1]
    limit = ["--constraint", f"params_without_embeddings<={budget}"]
    within = [row for row in results["front"] if params(row["architecture"]) <= budget]
    assert within
    for name, number in (("search.json", len(within)), ("front.jsonl", len(within)), ("best.yaml", 1)):
        seeds = ["--seeds-from", tmp_path / "one" / name, "--algorithm", "random", "--num-subnets", 9]
        done = search(commands, joined, supernet, tmp_path / name, *seeds, *(limit if number > 1 else ()))
        first = judged_keys(tmp_path / name)[:number]
        known = {Subnet.from_dict(row["architecture"]).key for row in [*results["front"], results["best"]]}
        assert set(first) <= known and len(set(first)) == number
        assert ("seeds miss a budget and are left out" in done.err) == (number > 1)
    assert 'id="parallel"' not in (tmp_path / "best.yaml" / "front.html").read_text()


def test_bad_seeds(commands, joined, supernet, tmp_path):
    space = SearchSpace.from_dict(EVEN_SPACE)
    other = space.smallest().to_dict() | {"encoder_embed_dim": 1000}
    contents = {
        "a.jsonl": (f"{json.dumps(space.smallest().to_dict())}\n{json.dumps({'architecture': other})}\n", "subnet 2"),
        "b.json": ("[]", "not the search.json of a search"),
        "c.jsonl": ("", "it holds no subnet"),
        "d.yaml": (json.dumps(other), "encoder_embed_dim"),
    }
    for name, (text, message) in contents.items():
        (tmp_path / name).write_text(text)
        done = search(commands, joined, supernet, tmp_path / "out", "--seeds-from", tmp_path / name, check=False)
        assert name in done.error() and message in done.error()
        assert not (tmp_path / "out" / "search.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cost", "params,params"], "cost is params,params: each is allowed once"),
        (["--cost", "params,speed"], "cost is params,speed: speed is not known; allowed are latency_ms"),
        (["--cost", "params,flops"], "several belong to algorithm nsga2 or random, this is evolution"),
        (["--algorithm", "asng", "--seeds-from", "x.yaml"], "seeds_from is x.yaml: it has no effect with algorithm"),
        (["--samples", 2], "samples is 2: it has no effect with algorithm evolution, only with asng"),
        (["--algorithm", "asng", "--population-size", 9], "population_size is 9: it has no effect with algorithm asng"),
        (["--inner-search", "nsga2"], "it has no effect with algorithm evolution, only with linas"),
        (["--algorithm", "nsga2", "--random-share", 0], "random_share is 0.0: it has no effect with algorithm nsga2"),
        ([*LINAS, "--parents", 3], "parents is 3: it has no effect with algorithm linas, only with evolution"),
        ([*LINAS, "--num-subnets", 3], "num_subnets is 3: it has no effect with algorithm linas, only with random"),
        ([*LINAS, "--random-share", 2], "random_share is 2.0: allowed are numbers from 0 to 1"),
    ],
)
def test_what_has_no_effect_is_refused(commands, joined, supernet, tmp_path, options, message):
    assert message in search(commands, joined, supernet, tmp_path / "out", *options, check=False).error()
    assert not (tmp_path / "out").exists()
