"""The neighbourhood of a budget in enumerated spaces: a hole, and the gain from a slightly larger budget."""

from __future__ import annotations

import pytest

from mos_fairseq.nas import Candidates, Constraint
from mos_fairseq.nas.budgets import beyond, holes, most_beyond
from mos_fairseq.nas.results import front_rows
from mos_fairseq.search_space import SearchSpace

from .test_search import LITTLE, Counter, made_up_loss

KEY = "params_without_embeddings"


def layers_cost(subnets):
    """A cost with a hole: 100 for each decoder layer, and a little for the width of its first layer."""
    return [
        {KEY: 100 * subnet.decoder_layers + subnet.decoder_ffn_embed_dim[0] / 1000, "flops": 1.0} for subnet in subnets
    ]


@pytest.mark.parametrize(("limit", "lies"), [(150, True), (199, True), (100.03, False), (400, False), (50, False)])
def test_holes(limit, lies):
    budget = Constraint(KEY, limit)
    candidates = Candidates(LITTLE, layers_cost, lambda subnets: [0.0] * len(subnets), [budget])
    found = holes(candidates)
    assert len(found) == lies
    if lies:
        costs = {row[KEY] for row in layers_cost(LITTLE.iterate())}
        assert found[0].below == max(cost for cost in costs if cost <= limit)
        assert found[0].above == min(cost for cost in costs if cost > limit)
        assert str(found[0]).startswith(f"{KEY}<={limit} lies in a hole of the search space: of ")


@pytest.mark.parametrize(("gap", "lies"), [(4, 0), (6, 1)])
def test_a_hole_is_wider_than_5_per_cent_of_the_budget(gap, lies):
    def costs(subnets):
        return [{KEY: 100.0 + gap * (subnet.decoder_layers == 2)} for subnet in subnets]

    assert len(holes(Candidates(LITTLE, costs, lambda subnets: [0.0] * len(subnets), [Constraint(KEY, 100)]))) == lies


def test_a_budget_among_many_subnets_lies_in_no_hole():
    space = SearchSpace.from_spec("tiny")
    counter = Counter(space, "params_without_embeddings<=60%")
    (largest,) = counter.candidates.costs_of([space.largest()])
    counter.candidates.constraints = [c.of_largest(largest) for c in counter.candidates.constraints]
    assert holes(counter.candidates) == [] and counter.evaluated == []


@pytest.mark.slow
def test_what_a_little_more_buys():
    budget = 0.6 * max(row[KEY] for row in Counter.costs(LITTLE.iterate()))
    counter = Counter(LITTLE, f"{KEY}<={budget}")
    candidates = counter.candidates
    best = min(filter(candidates.feasible, LITTLE.iterate()), key=made_up_loss)
    found = beyond(candidates, best)
    assert 0 < candidates.excess(candidates.costs_of([found])[0]) <= 0.1
    assert 0 < len(counter.evaluated) <= most_beyond(True)
    assert made_up_loss(found) == min(candidates.known.values())
    # earlier judgements count, too
    near = [s for s in LITTLE.iterate() if 0 < candidates.excess(candidates.costs_of([s])[0]) <= 0.1]
    candidates.losses(near)
    assert beyond(candidates, best) == min(near, key=made_up_loss)


def test_what_a_little_more_buys_may_be_worse():
    """It is beyond the budget even where everything within is better."""
    budget = Constraint(KEY, 0.6 * max(row[KEY] for row in Counter.costs(LITTLE.iterate())))
    candidates = Candidates(
        LITTLE, Counter.costs, lambda subnets: [float(row[KEY]) for row in Counter.costs(subnets)], [budget]
    )
    kept = [subnet for subnet in LITTLE.iterate() if candidates.feasible(subnet)]
    candidates.losses(kept)
    found = beyond(candidates, max(kept, key=lambda subnet: candidates.known[subnet.key]))
    assert 0 < candidates.excess(candidates.costs_of([found])[0]) <= 0.1


def test_without_budgets_nothing_lies_beyond():
    counter = Counter(LITTLE)
    assert beyond(counter.candidates, LITTLE.largest()) is None
    assert counter.evaluated == [] and most_beyond(False) == 0


def test_rows_over_the_whole_front():
    front = [{"flops": cost, "loss": -cost} for cost in (1, 2, 3, 4, 50, 98, 99, 100)]
    results = {"front": front, "cost": "flops"}
    assert [row["flops"] for row in front_rows(results, 3)] == [1, 50, 100]
    assert [row["flops"] for row in front_rows(results, 5)] == [1, 4, 50, 98, 100]
    assert front_rows({"front": front[:1], "cost": "flops"}, 5) == front[:1]
