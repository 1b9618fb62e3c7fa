"""Search algorithms on synthetic losses: they find the enumerated optimum, keep budgets, and are deterministic."""

import hashlib
import random

import pytest

from mos_fairseq.cost import subnet_cost
from mos_fairseq.errors import InputError
from mos_fairseq.nas import (
    Candidates,
    Constraint,
    EvolutionOptions,
    ParetoOptions,
    evolve,
    front,
    hypervolume,
    pareto_search,
    random_search,
)
from mos_fairseq.nas.genes import GeneSpace
from mos_fairseq.nas.results import report
from mos_fairseq.search_space import SearchSpace, Subnet
from tests.helpers import small_space

# few enough to enumerate
LITTLE = small_space(
    encoder_layers=[2],
    decoder_layers=[2, 1],
    encoder_attention_heads=[4, 2],
    decoder_attention_heads=[4],
    decoder_ende_attention_heads=[4],
    decoder_arbitrary_ende_attn=[-1, 1],
)
TINY = SearchSpace.from_spec("tiny")
SMALL_RUN = EvolutionOptions(population_size=24, parents=6, mutations=9, crossovers=9, iterations=8, seed=3)


def made_up_loss(subnet) -> float:
    """Falls with size, more slowly the larger, and has a grain as measured losses do."""
    cost = subnet_cost(subnet)
    grain = int(hashlib.sha256(subnet.key.encode()).hexdigest()[:8], 16) / 2**32
    heads = 0.02 * sum(h == 2 for h in (*subnet.encoder_attention_heads, *subnet.decoder_attention_heads))
    return 3 + 40 / cost.params_without_embeddings**0.4 - heads - 0.05 * max(subnet.cross_spans) + 0.004 * grain


class Counter:
    """Candidates of a space that count their judgements."""

    def __init__(self, space, *constraints: str, known=None):
        self.evaluated: list[str] = []
        limits = [Constraint.parse(text) for text in constraints]
        self.candidates = Candidates(space, self.costs, self.evaluate, limits, known={} if known is None else known)

    @staticmethod
    def costs(subnets):
        return [{k: v for k, v in subnet_cost(s).to_dict().items() if v is not None} for s in subnets]

    def evaluate(self, subnets):
        self.evaluated += [subnet.key for subnet in subnets]
        return [made_up_loss(subnet) for subnet in subnets]


def middle_budget(space) -> str:
    least, most = (subnet_cost(s).params_without_embeddings for s in (space.smallest(), space.largest()))
    return f"params_without_embeddings<={(least + most) // 2}"


@pytest.mark.parametrize("chosen", [True, False])
def test_of_equally_good_subnets_the_cheapest_is_the_best(chosen):
    """Also in place of the one that an algorithm met first; a better one stays."""
    counter = Counter(LITTLE)
    candidates = counter.candidates
    subnets = [LITTLE.largest(), *(LITTLE.sample_subnet("equal", i) for i in range(6)), LITTLE.smallest()]
    candidates.known |= {subnet.key: 1.0 for subnet in subnets}
    candidates.losses(subnets)
    best = report(
        candidates,
        subnets[0] if chosen else None,
        ["params_without_embeddings", "flops_without_output_projection"],
        "accuracy",
    )["best"]
    assert Subnet.from_dict(best["architecture"]) == LITTLE.smallest() and not counter.evaluated
    candidates.known[subnets[1].key] = 0.5
    best = report(candidates, subnets[1] if chosen else None, "params_without_embeddings", "loss")["best"]
    assert Subnet.from_dict(best["architecture"]) == subnets[1]


def test_a_compared_subnet_may_be_the_best():
    """What was judged after the search counts within the budgets, and the algorithm's own answer stays known."""
    candidates = Counter(LITTLE, middle_budget(LITTLE)).candidates
    drawn = {subnet.key: subnet for subnet in (LITTLE.sample_subnet("kept", i) for i in range(60))}
    within = [s for s in drawn.values() if candidates.feasible(s) and s != LITTLE.smallest()]
    candidates.known |= {subnet.key: 2.0 - index / 100 for index, subnet in enumerate(within)}
    candidates.known |= {LITTLE.largest().key: 0.1, LITTLE.smallest().key: 0.5}
    candidates.losses(within)
    candidates.losses([LITTLE.largest(), LITTLE.smallest()])
    found = report(candidates, None, "params_without_embeddings", "loss", within)
    assert found["judged"] == len(within) > 2
    assert Subnet.from_dict(found["algorithm_best"]["architecture"]) == within[-1]
    assert Subnet.from_dict(found["best"]["architecture"]) == LITTLE.smallest()
    assert [Subnet.from_dict(row["architecture"]) for row in found["front"]] == [LITTLE.smallest()]


# --- vectors ---


@pytest.mark.parametrize("space", [small_space(), LITTLE, TINY], ids=["small", "little", "tiny"])
def test_vectors_stand_for_subnets(space):
    genes, rng = GeneSpace(space), random.Random(1)
    for index in range(40):
        subnet = space.sample_subnet("genes", index)
        assert genes.decode(genes.encode(subnet)) == subnet
        vector = genes.random(rng)
        assert all(0 <= i < size for i, size in zip(vector, genes.sizes, strict=True))
        assert space.contains(genes.decode(vector))
        other = genes.random(rng)
        child = genes.crossover(vector, other, rng)
        assert all(c in pair for c, *pair in zip(child, vector, other, strict=True))
        steps = sum(a != b for a, b in zip(vector, other, strict=True))
        for _ in range(steps):
            vector = genes.towards(vector, other, rng)
        assert vector == other == genes.towards(vector, other, rng)
    assert genes.mutate(vector, 1e-12, rng) == vector
    changed = [sum(a != b for a, b in zip(genes.mutate(vector, 0.5, rng), vector, strict=True)) for _ in range(200)]
    expected = sum(0.5 * (1 - 1 / size) for size in genes.sizes)
    assert sum(changed) / 200 == pytest.approx(expected, rel=0.15)


# --- constraints ---


def test_constraints():
    constraint = Constraint.parse(" params <= 8e6 ")
    assert (constraint.key, constraint.limit, str(constraint)) == ("params", 8e6, "params<=8e+06")
    assert constraint.excess({"params": 6e6}) == -0.25 and constraint.excess({"params": 10e6}) == 0.25


def test_constraints_in_parts_of_the_largest_subnet():
    constraint = Constraint.parse("params <= 62.5 %")
    assert str(constraint) == "params<=62.5%"
    assert constraint.of_largest({"params": 8e6, "flops": 1.0}) == Constraint("params", 5e6)
    assert Constraint("params", 5e6).of_largest({"params": 8e6}) == Constraint("params", 5e6)


@pytest.mark.parametrize(
    ("number", "limit"), [("8", 8), ("008", 8), ("40.5", 40.5), ("8.", 8), (".5", 0.5), ("+8E6", 8e6), ("8e-3", 0.008)]
)
def test_numbers_of_constraints(number, limit):
    assert Constraint.parse(f"latency_ms<={number}") == Constraint("latency_ms", limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params<8", "allowed is KEY<=NUMBER"),
        ("params<=many", "allowed is KEY<=NUMBER"),
        ("speed<=8", "speed is not known; allowed are latency_ms"),
        ("flops<=-1", "must be a positive number"),
        ("flops<=+0.0", "must be a positive number"),
        ("flops<=1e999", "must be a positive number"),
        # Python parses these as numbers
        ("flops<=nan", "'flops<=nan': allowed is KEY<=NUMBER, the number in digits with a point or an exponent"),
        ("flops<=inf", "allowed is KEY<=NUMBER"),
        ("flops<=1_000", "allowed is KEY<=NUMBER"),
        ("flops<=１０００", "allowed is KEY<=NUMBER"),
        ("flops<=٣", "allowed is KEY<=NUMBER"),
        ("flops<=.", "allowed is KEY<=NUMBER"),
        ("flops<=1e", "allowed is KEY<=NUMBER"),
        ("flops<=0%", "must be a positive number"),
        ("flops<=8%%", "allowed is KEY<=NUMBER"),
        ("flops<=%", "allowed is KEY<=NUMBER"),
        ("", "allowed is KEY<=NUMBER"),
    ],
)
def test_bad_constraints(text, message):
    with pytest.raises(InputError, match=message):
        Constraint.parse(text)


@pytest.mark.parametrize("search", ["evolution", "nsga2", "random"])
def test_what_cannot_be_reached_is_named(search):
    counter = Counter(LITTLE, "params_without_embeddings<=10")
    least = subnet_cost(LITTLE.smallest()).params_without_embeddings
    with pytest.raises(InputError, match=f"no subnet keeps it, the smallest reachable is .* {least}$"):
        run(search, counter.candidates)
    assert not counter.evaluated


def heads_or_depth(subnets):
    """Costs that pull against each other."""
    return [
        {"latency_ms": 20.0 - sum(s.encoder_attention_heads), "params": 10.0 + sum(s.encoder_attention_heads)}
        for s in subnets
    ]


def test_of_several_constraints_each_ones_smallest_value_is_named():
    counter = Counter(LITTLE, "latency_ms<=5", "params<=6")
    counter.candidates.costs = heads_or_depth
    with pytest.raises(InputError, match=r"<=5, params<=6: .* smallest reachable is latency_ms 12, params 14$"):
        counter.candidates.check_reachable()
    counter = Counter(LITTLE, "latency_ms<=13", "params<=15")
    counter.candidates.costs = heads_or_depth
    with pytest.raises(InputError, match="each can be kept alone, not together; the nearest is latency_ms 1"):
        counter.candidates.check_reachable()


@pytest.mark.parametrize("part", [1.0, 1.03])
def test_nsga2_within_a_budget_that_random_draws_hardly_ever_keep(part):
    least = subnet_cost(TINY.smallest()).params_without_embeddings
    known = {TINY.largest().key: 0.1}  # from another search, so not this one's best
    counter, shown = Counter(TINY, f"params_without_embeddings<={part * least}", known=known), []
    options = ParetoOptions("params_without_embeddings", 8, 4)
    found = pareto_search(counter.candidates, options, lambda n, loss: shown.append(loss))
    assert found and all(counter.candidates.feasible(subnet) for subnet in found)
    assert len(shown) == 4 and min(map(made_up_loss, found)) == shown[-1]


def test_the_cheapest_need_not_be_the_smallest():
    """Where fewer heads take longer, as they may on a real machine."""
    counter = Counter(LITTLE, "latency_ms<=7")
    heads = {subnet.key: subnet.encoder_attention_heads for subnet in LITTLE.iterate()}
    counter.candidates.costs = lambda subnets: [{"latency_ms": 10 - sum(heads[s.key]) / 2} for s in subnets]
    cheapest = counter.candidates.genes.decode(counter.candidates.check_reachable())
    assert cheapest.encoder_attention_heads == (4, 4)


# --- algorithms ---


def run(search: str, candidates: Candidates, seed: int = 3):
    if search == "evolution":
        return evolve(candidates, EvolutionOptions(24, 6, 9, 0.3, 9, 8, seed))
    if search == "nsga2":
        return pareto_search(candidates, ParetoOptions("params_without_embeddings", 16, 12, seed))
    return random_search(candidates, 100, seed)


@pytest.mark.parametrize("budget", [True, False])
def test_evolution_finds_the_optimum_of_a_space_small_enough_to_enumerate(budget):
    limits = [middle_budget(LITTLE)] if budget else []
    counter = Counter(LITTLE, *limits)
    kept = [subnet for subnet in LITTLE.iterate() if counter.candidates.feasible(subnet)]
    order = sorted(kept, key=made_up_loss)
    assert len(order) >= 600
    best = evolve(counter.candidates, SMALL_RUN)
    assert order.index(best) < 0.01 * len(order)
    assert len(counter.evaluated) < 0.3 * len(order)


@pytest.mark.parametrize("search", ["evolution", "nsga2", "random"])
def test_budgets_are_kept_and_nothing_is_judged_twice(search):
    counter = Counter(TINY, middle_budget(TINY))
    result = run(search, counter.candidates)
    assert len(counter.evaluated) == len(set(counter.evaluated)) >= 60
    assert all(counter.candidates.feasible(subnet) for subnet in counter.candidates.seen.values())
    for subnet in result if search == "nsga2" else [result]:
        assert subnet.key in counter.evaluated


@pytest.mark.slow
def test_a_narrow_budget_is_searched_all_the_same():
    """Random draws would hardly ever keep it."""
    least = subnet_cost(TINY.smallest()).params_without_embeddings
    counter = Counter(TINY, f"params_without_embeddings<={1.03 * least}")
    evolve(counter.candidates, SMALL_RUN)
    assert len(counter.evaluated) >= 5
    assert all(counter.candidates.feasible(subnet) for subnet in counter.candidates.seen.values())


@pytest.mark.parametrize("search", ["evolution", "nsga2", "random"])
def test_an_interrupted_search_goes_on_to_the_same_result(search):
    """With the losses it knew, and evaluating only the others."""
    whole = Counter(TINY, middle_budget(TINY))
    expected = run(search, whole.candidates)
    for part in (0.3, 0.8):
        stop = int(part * len(whole.evaluated))
        known = {key: whole.candidates.known[key] for key in whole.evaluated[:stop]}
        again = Counter(TINY, middle_budget(TINY), known=known)
        assert run(search, again.candidates) == expected
        assert again.evaluated == whole.evaluated[stop:]
    if search == "random":
        assert run(search, Counter(TINY, middle_budget(TINY)).candidates, seed=4) != expected


def test_front_against_a_direct_computation():
    counter = Counter(LITTLE)
    subnets = [LITTLE.sample_subnet("front", i) for i in range(60)]
    key = "params_without_embeddings"
    points = {s.key: (made_up_loss(s), subnet_cost(s).params_without_embeddings) for s in subnets}
    expected = {
        k for k, (a, b) in points.items() if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in points.values())
    }
    found = front(counter.candidates, subnets, key)
    assert {subnet.key for subnet in found} == expected and len(found) > 3
    costs = [points[subnet.key][1] for subnet in found]
    assert costs == sorted(costs)


def test_front_of_several_costs_against_a_direct_computation():
    counter = Counter(TINY)
    keys = ("params_without_embeddings", "flops_without_output_projection")
    options = ParetoOptions(keys, 12, 4)
    found = pareto_search(counter.candidates, options)
    assert len(set(counter.evaluated)) == len(counter.evaluated) <= options.most_subnets
    points = {
        key: (made_up_loss(s), *(counter.candidates.costs_of([s])[0][name] for name in keys))
        for key, s in counter.candidates.seen.items()
    }
    expected = {
        key
        for key, point in points.items()
        if not any(o != point and all(a <= b for a, b in zip(o, point, strict=True)) for o in points.values())
    }
    assert {subnet.key for subnet in found} == expected and len(found) > len(front(counter.candidates, found, keys[0]))
    costs = [points[subnet.key][1] for subnet in found]
    assert costs == sorted(costs)
    assert front(counter.candidates, found, (keys[0],)) == front(counter.candidates, found, keys[0])


@pytest.mark.slow
@pytest.mark.parametrize("search", ["evolution", "nsga2"])
def test_search_beats_random_draws_of_the_same_number(search):
    """Evolution by its best subnet, NSGA-II by the area under its front, over five seeds."""
    wins = 0
    for seed in range(1, 6):
        searched = Counter(TINY, middle_budget(TINY))
        run(search, searched.candidates, seed)
        drawn = Counter(TINY, middle_budget(TINY))
        random_search(drawn.candidates, len(searched.evaluated), seed)
        if search == "evolution":
            wins += min(searched.candidates.known.values()) < min(drawn.candidates.known.values())
        else:
            worst = (5.0, 2e6)
            areas = [
                hypervolume(c.candidates, list(c.candidates.seen.values()), "params_without_embeddings", worst)
                for c in (searched, drawn)
            ]
            wins += areas[0] > areas[1]
    assert wins >= 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parents": 126}, "parents is 126: allowed are at most population_size=125"),
        ({"mutation_prob": 0.0}, "mutation_prob is 0.0"),
        ({"iterations": -1}, "iterations is -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        EvolutionOptions(**options)
    with pytest.raises(InputError, match="generations is 1"):
        ParetoOptions(generations=1)
    with pytest.raises(InputError, match="seed is -1"):
        ParetoOptions(seed=-1)


@pytest.mark.parametrize("search", ["evolution", "nsga2"])
def test_no_more_is_judged_than_foretold(search):
    """And nearly the same number where neither budgets nor a small space exclude any."""
    counter = Counter(TINY)
    if search == "evolution":
        evolve(counter.candidates, options := EvolutionOptions(24, 6, 9, 0.3, 8, 5, 1))
    else:
        pareto_search(counter.candidates, options := ParetoOptions("params_without_embeddings", 16, 6, 1))
    assert options.most_subnets == {"evolution": 24 + 5 * (9 + 8), "nsga2": 96}[search]
    assert 0.8 * options.most_subnets <= len(counter.evaluated) <= options.most_subnets


@pytest.mark.slow
def test_random_search_of_as_many_as_there_are_judges_all():
    counter = Counter(LITTLE)
    best = random_search(counter.candidates, LITTLE.size, seed=2)
    assert sorted(counter.evaluated) == sorted(subnet.key for subnet in LITTLE.iterate())
    assert made_up_loss(best) == min(map(made_up_loss, LITTLE.iterate()))
    orders = []
    for seed in (2, 2, 3):
        some = Counter(LITTLE)
        random_search(some.candidates, LITTLE.size - 5, seed)
        assert len(some.evaluated) == LITTLE.size - 5
        orders.append(some.evaluated)
    assert orders[0] == orders[1] != orders[2]


def test_random_search_judges_all_that_tight_budgets_leave():
    """Drawing seldom finds the last of them."""
    space = LITTLE.narrowed({"encoder_embed_dim": [20], "decoder_embed_dim": [28]})
    costs = sorted(subnet_cost(subnet).params_without_embeddings for subnet in space.iterate())
    counter = Counter(space, f"params_without_embeddings<={costs[120]}")
    wanted = sum(cost <= costs[120] for cost in costs)
    random_search(counter.candidates, space.size // 2, seed=2)
    assert len(set(counter.evaluated)) == len(counter.evaluated) == wanted


def test_random_search_judges_all_seeds():
    """Whether the space is listed or drawn from."""
    one = {"encoder_embed_dim": [20], "decoder_embed_dim": [28], "encoder_ffn_embed_dim": [33], "decoder_layers": [1]}
    space = LITTLE.narrowed(one)
    for asked, given in ((2, 4), (space.size // 2 + 1, space.size // 2 + 3)):
        counter = Counter(space)
        counter.candidates.seeds = list(space.iterate())[:given]
        random_search(counter.candidates, asked, seed=1)
        assert sorted(counter.evaluated) == sorted(seed.key for seed in counter.candidates.seeds)
