"""LINAS on synthetic losses: its predictor learns, and it finds the best with fewer judged subnets than others."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.nas import (
    EvolutionOptions,
    LinasOptions,
    ParetoOptions,
    QualityPredictor,
    evolve,
    hypervolume,
    linas_search,
    pareto_search,
    random_search,
)
from mos_fairseq.nas import linas as module
from mos_fairseq.nas.genes import GeneSpace
from mos_fairseq.nas.pareto import spread
from mos_fairseq.nas.surrogate import agreement
from mos_fairseq.search_space import SearchSpace

from .test_search import LITTLE, TINY, Counter, made_up_loss, middle_budget

KEY = "params_without_embeddings"
SMALL = LinasOptions(population_size=14, iterations=3, inner_evaluations=400, seed=2)


def losses_of(counter: Counter) -> list[float]:
    return [counter.candidates.known[key] for key in counter.evaluated]


def reached(losses: list[float], goal: float) -> int:
    """How many were judged until one was as good as the goal."""
    return next((index + 1 for index, loss in enumerate(losses) if loss <= goal), len(losses) + 1)


# --- features ---


@pytest.mark.parametrize("space", [LITTLE, TINY, SearchSpace.from_spec("tiny_lm")], ids=["little", "tiny", "lm"])
def test_equal_subnets_have_equal_features_and_others_have_not(space):
    genes, rng = GeneSpace(space), random.Random(3)
    vectors = [genes.random(rng) for _ in range(300)]
    rows = genes.features(vectors)
    canonical = genes.features([genes.encode(genes.decode(vector)) for vector in vectors])
    choices = rows[:, : rows.shape[1] - genes.num_totals]
    assert choices.shape[1] == sum(size for size in genes.sizes if size > 1) and set(np.unique(choices)) == {0.0, 1.0}
    taken = rows[:, rows.shape[1] - genes.num_totals :][:, : len(space["decoder_ffn_embed_dim"])].sum(1)
    stack = space.family.stacks[0].name  # its layers' sizes come first
    assert taken.tolist() == [len(genes.decode(vector)[f"{stack}_ffn_embed_dim"]) for vector in vectors]
    assert np.array_equal(rows, canonical)
    keys = {genes.decode(vector).key for vector in vectors}
    assert len({tuple(row) for row in rows.tolist()}) == len(keys) > 100
    assert genes.features([]).shape == (0, rows.shape[1])


# --- predictor ---


def data(number: int = 160) -> tuple[np.ndarray, np.ndarray]:
    genes, rng = GeneSpace(TINY), random.Random(5)
    vectors = [genes.random(rng) for _ in range(number)]
    return genes.features(vectors), np.array([made_up_loss(genes.decode(vector)) for vector in vectors])


@pytest.mark.parametrize("family", ["ridge", "svr", "boosting", "auto"])
def test_every_predictor_tells_good_from_bad(family):
    x, y = data()
    predictor = QualityPredictor(x[:110], y[:110], family)
    found = agreement(y[110:], predictor.predict(x[110:]))
    assert found["kendall_tau"] > 0.7 and found["mae"] < 0.5 * np.abs(y[110:] - y[:110].mean()).mean()
    assert predictor.family == family or family == "auto"
    # in any unit
    other = QualityPredictor(x[:110], 1000 * y[:110] - 7, family)
    assert np.allclose(other.predict(x[110:]), 1000 * predictor.predict(x[110:]) - 7, rtol=1e-3, atol=0.5)


def test_what_tells_nothing_is_predicted_by_its_mean():
    x, y = data(12)
    for predictor in (QualityPredictor(x[:9], y[:9]), QualityPredictor(x, np.ones(12)), QualityPredictor(x[:, :0], y)):
        assert predictor.family == "mean" and len(set(predictor.predict(x[:, : predictor._x_mean.size]))) == 1
    assert QualityPredictor(x, y).family != "mean"
    assert agreement(np.array([1.0, 2.0]), np.array([3.0, 3.0])) == {"mae": 1.5, "kendall_tau": None}


def test_spread_takes_whole_fronts_and_thins_the_last():
    points = np.array([[0, 4], [4, 0], [1, 2], [2, 1], [1.2, 1.9], [5, 5], [4, 4], [6, 6]], dtype=float)
    assert set(spread(points, 5)) == {0, 1, 2, 3, 4}
    assert set(spread(points, 6)) == {0, 1, 2, 3, 4, 6}
    few = spread(points, 4)
    assert {0, 1, 3} <= set(few) and len(few) == 4  # the ends, and the isolated point
    assert spread(points, 20) == spread(points, 8) and spread(points[:0], 3) == spread(points, 0) == []


# --- search ---


class Oracle:
    """Knows all losses."""

    family = "oracle"

    def __init__(self, features, losses, *more):
        genes = GeneSpace(LITTLE)
        subnets = list(LITTLE.iterate())
        rows = genes.features([genes.encode(subnet) for subnet in subnets])
        self.known = {tuple(row): made_up_loss(subnet) for row, subnet in zip(rows.tolist(), subnets, strict=True)}

    def predict(self, features):
        return np.array([self.known[tuple(row)] for row in features.tolist()])


@pytest.mark.slow
@pytest.mark.parametrize("inner", ["evolution", "nsga2"])
def test_a_perfect_predictor_finds_the_optimum_with_its_first_choice(inner, monkeypatch):
    monkeypatch.setattr(module, "QualityPredictor", Oracle)
    counter, records = Counter(LITTLE, middle_budget(LITTLE)), []
    kept = [subnet for subnet in LITTLE.iterate() if counter.candidates.feasible(subnet)]
    options = LinasOptions(KEY, population_size=10, iterations=1, inner_search=inner, inner_evaluations=LITTLE.size)
    found = linas_search(counter.candidates, options, on_batch=records.append)
    assert len(counter.evaluated) == 20
    assert min(map(made_up_loss, found)) == min(map(made_up_loss, kept))
    assert [record["mae"] for record in records] == [0.0] and records[0]["kendall_tau"] == pytest.approx(1.0)
    if inner == "evolution":  # nine predicted to be best, all of them among the best there are, and a random one
        order = sorted(kept, key=made_up_loss)
        assert sum(subnet.key in {s.key for s in order[:19]} for subnet in map_keys(counter)[10:]) >= 9


def map_keys(counter: Counter) -> list:
    return [counter.candidates.seen[key] for key in counter.evaluated]


def test_a_predictor_that_knows_nothing_leaves_a_search(monkeypatch):
    class Ignorant(QualityPredictor):
        def __init__(self, features, losses, *more):
            super().__init__(features[:1], losses[:1])

    monkeypatch.setattr(module, "QualityPredictor", Ignorant)
    counter, records = Counter(TINY, middle_budget(TINY)), []
    linas_search(counter.candidates, SMALL, on_batch=records.append)
    assert len(set(counter.evaluated)) == len(counter.evaluated) == SMALL.most_subnets
    assert {record["kendall_tau"] for record in records} == {None}


@pytest.mark.parametrize(
    ("inner", "most", "judged"),
    [("evolution", 100, 20), ("evolution", 160, 400), ("evolution", 400, 400), ("nsga2", 100, 20), ("nsga2", 400, 400)],
)
def test_no_more_is_predicted_than_allowed(inner, most, judged):
    """Neither by the first population nor by many seeds."""
    counter, rng = Counter(TINY), random.Random(1)
    counter.candidates.losses([TINY.sample(rng) for _ in range(judged)])
    predictor = SimpleNamespace(predict=lambda rows: rows.sum(1))
    options = LinasOptions(KEY, judged, inner_search=inner, inner_evaluations=most)
    found = module._search_predictions(counter.candidates, options, predictor, 1)
    assert 0.5 * most < len(found.seen) <= most


@pytest.mark.slow
@pytest.mark.parametrize("inner", ["evolution", "nsga2"])
def test_linas_keeps_budgets_judges_once_says_what_it_did_and_goes_on_after_an_interruption(inner):
    options = LinasOptions(KEY, 12, 3, inner, 200, seed=4)
    whole, records = Counter(TINY, middle_budget(TINY)), []
    expected = linas_search(whole.candidates, options, on_batch=records.append)
    assert len(whole.evaluated) == len(set(whole.evaluated)) == options.most_subnets == records[-1]["judged"]
    assert [record["judged"] for record in records] == [24, 36, 48] and [r["batch"] for r in records] == [1, 2, 3]
    assert all(whole.candidates.feasible(subnet) for subnet in whole.candidates.seen.values())
    assert {subnet.key for subnet in expected} <= set(whole.evaluated)
    assert records[-1]["best"] == min(losses_of(whole)) == min(map(made_up_loss, expected))
    for part in (0.6,):
        stop = int(part * len(whole.evaluated))
        known = {key: whole.candidates.known[key] for key in whole.evaluated[:stop]}
        again, other = Counter(TINY, middle_budget(TINY), known=known), []
        assert linas_search(again.candidates, options, on_batch=other.append) == expected
        assert again.evaluated == whole.evaluated[stop:] and other == records
    other = Counter(TINY, middle_budget(TINY))
    linas_search(other.candidates, LinasOptions(KEY, 12, 0, inner, 200, seed=5))
    assert other.evaluated != whole.evaluated[:12]


@pytest.mark.slow
def test_linas_reaches_what_evolution_ends_with_in_fewer_judged_subnets():
    wins = 0
    for seed in range(1, 4):
        evolved, learned = (Counter(LITTLE, middle_budget(LITTLE)) for _ in range(2))
        evolve(evolved.candidates, EvolutionOptions(30, 10, 15, 0.3, 15, 4, seed))
        linas_search(learned.candidates, LinasOptions(population_size=15, iterations=4, seed=seed))
        wins += reached(losses_of(learned), min(losses_of(evolved))) <= 0.6 * len(evolved.evaluated)
    assert wins >= 2


@pytest.mark.slow
def test_with_nsga2_inside_the_front_is_wider_than_that_of_nsga2_alone():
    wins = 0
    for seed in range(1, 4):
        counters = [Counter(TINY, middle_budget(TINY)) for _ in range(2)]
        linas_search(counters[0].candidates, LinasOptions(KEY, 16, 4, "nsga2", 400, "svr", seed=seed))
        pareto_search(counters[1].candidates, ParetoOptions(KEY, 16, 6, seed))
        assert len(counters[0].evaluated) <= len(counters[1].evaluated) + 8
        areas = [hypervolume(c.candidates, list(c.candidates.seen.values()), KEY, (5.0, 2e6)) for c in counters]
        wins += areas[0] > areas[1]
    assert wins >= 2


@pytest.mark.slow
def test_a_space_that_is_judged_whole_ends_the_search():
    space = SearchSpace.from_dict(LITTLE.to_dict() | {"encoder_ffn_embed_dim": [32], "decoder_ffn_embed_dim": [32]})
    counter = Counter(space)
    linas_search(counter.candidates, LinasOptions(population_size=40, iterations=9))
    assert len(counter.evaluated) == space.size < 360


@pytest.mark.parametrize("search", ["evolution", "nsga2", "random", "linas"])
def test_searches_begin_with_the_seeds_that_keep_the_budgets(search):
    counter = Counter(TINY, middle_budget(TINY))
    counter.candidates.seeds = [TINY.smallest(), TINY.largest(), TINY.smallest()]
    if search == "evolution":
        evolve(counter.candidates, EvolutionOptions(6, 2, 2, 0.3, 2, 1))
    elif search == "nsga2":
        pareto_search(counter.candidates, ParetoOptions(KEY, 6, 2))
    elif search == "random":
        random_search(counter.candidates, 6, 1)
    else:
        linas_search(counter.candidates, LinasOptions(population_size=6, iterations=0))
    assert counter.evaluated[0] == TINY.smallest().key and TINY.largest().key not in counter.evaluated
    assert len(set(counter.evaluated)) >= 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 1}, "population_size is 1"),
        ({"iterations": -1}, "iterations is -1"),
        ({"inner_evaluations": 99}, "inner_evaluations is 99"),
        ({"inner_search": "random"}, "inner_search is random: allowed are evolution, nsga2"),
        ({"quality_predictor": "gp"}, "quality_predictor is gp: allowed are auto, ridge, svr, boosting"),
        ({"random_share": 1.1}, "random_share is 1.1"),
        ({"seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_bad_options_of_linas(options, message):
    with pytest.raises(InputError, match=message):
        LinasOptions(**options)
