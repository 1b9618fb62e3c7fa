"""ASNG: its distribution, and its search on landscapes with a known optimum."""

import json
import random

import numpy as np
import pytest

from mos_fairseq.errors import InputError
from mos_fairseq.nas import AsngOptions, CategoricalASNG, asng_search
from mos_fairseq.nas.asng import _utilities, within_budgets

from .test_search import LITTLE, TINY, Counter, made_up_loss, middle_budget

SIZES = (3, 2, 1, 4, 2, 3, 2, 2, 3, 4, 2, 3)


def separable(seed: int) -> list[np.ndarray]:
    """A loss for each choice of each entry."""
    return [np.random.default_rng((seed, slot)).permutation(size).astype(float) for slot, size in enumerate(SIZES)]


def loss_of(vector, landscape) -> float:
    return float(sum(part[index] for part, index in zip(landscape, vector, strict=True)))


def climb(seed: int, draws: int) -> CategoricalASNG:
    distribution, rng, landscape = CategoricalASNG(SIZES), random.Random(seed), separable(seed)
    for _ in range(draws // 2):
        pair = [distribution.draw(rng) for _ in range(2)]
        distribution.update(pair, [loss_of(vector, landscape) for vector in pair])
    return distribution


@pytest.mark.slow
def test_the_optimum_of_a_separable_landscape_is_found_by_every_seed():
    for seed in range(20):
        assert climb(seed, 800).answer() == tuple(int(part.argmin()) for part in separable(seed)), seed


def test_rows_are_distributions_and_no_choice_is_given_up():
    distribution = climb(1, 600)
    entries = sum(size > 1 for size in SIZES)
    for row, size in zip(distribution.theta, SIZES, strict=True):
        assert row.sum() == pytest.approx(1, abs=1e-12)
        assert size == 1 or row.min() >= min(1 / entries, 0.1) / (size - 1) - 1e-12
        assert size == 1 or row.max() > 0.6
    few = CategoricalASNG((2, 2))
    for _ in range(60):
        few.update([(0, 1), (1, 0)], [1.0, 2.0])
    assert few.answer() == (0, 1) and few.theta[0][0] == pytest.approx(0.9)


def test_equal_losses_teach_nothing_and_a_step_goes_to_the_better():
    distribution = CategoricalASNG(SIZES)
    vectors = [tuple(0 for _ in SIZES), tuple(size - 1 for size in SIZES)]
    before = json.dumps(distribution.to_dict())
    assert not distribution.update(vectors, [2.0, 2.0]) and json.dumps(distribution.to_dict()) == before
    assert distribution.update(vectors, [2.0, 3.0])
    for row, size in zip(distribution.theta, SIZES, strict=True):
        assert size == 1 or row[0] > 1 / size > row[-1]
    assert not CategoricalASNG((1, 1)).update([(0, 0), (0, 0)], [1.0, 2.0])


def test_draws_follow_the_distribution():
    distribution, rng = CategoricalASNG((3, 2)), random.Random(1)
    distribution.theta = [np.array([0.7, 0.1, 0.2]), np.array([0.0, 1.0])]
    drawn = np.array([distribution.draw(rng) for _ in range(3000)])
    assert np.bincount(drawn[:, 0]) / 3000 == pytest.approx([0.7, 0.1, 0.2], abs=0.03) and set(drawn[:, 1]) == {1}
    assert distribution.answer() == (0, 1)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.0, 1.0], [-1, 1]),
        ([1.0, 1.0], [0, 0]),
        ([4.0, 1.0, 3.0, 2.0, 6.0, 5.0, 7.0, 8.0], [0, 0.5, 0, 0.5, 0, 0, -0.5, -0.5]),
        ([1.0, 1.0, 1.0, 2.0], [1 / 3, 1 / 3, 1 / 3, -1]),
    ],
)
def test_utilities(losses, expected):
    assert _utilities(losses) == pytest.approx(expected)


def test_a_distribution_is_written_and_read_exactly():
    distribution = climb(3, 40)
    again = CategoricalASNG.from_dict(json.loads(json.dumps(distribution.to_dict())))
    pair = [tuple(0 for _ in SIZES), tuple(size - 1 for size in SIZES)]
    for one in (distribution, again):
        one.update(pair, [1.0, 2.0])
    assert json.dumps(again.to_dict()) == json.dumps(distribution.to_dict())
    bad = distribution.to_dict()
    for part, value in (("theta", [[0.5, 0.6]]), ("path", [[0.0]])):
        with pytest.raises(ValueError, match="no distributions"):
            CategoricalASNG.from_dict(bad | {part: value})


# --- search ---


def test_asng_keeps_budgets_judges_once_and_goes_on_after_an_interruption():
    options = AsngOptions(iterations=40, seed=4)
    whole, shown = Counter(TINY, middle_budget(TINY)), []
    expected = asng_search(whole.candidates, options, lambda n, loss: shown.append(loss))
    assert len(set(whole.evaluated)) == len(whole.evaluated) <= options.most_subnets == 81
    assert all(whole.candidates.feasible(subnet) for subnet in whole.candidates.seen.values())
    assert len(shown) == 40 and made_up_loss(expected) == min(whole.candidates.known.values()) <= shown[-1]
    stop = len(whole.evaluated) // 2
    known = {key: whole.candidates.known[key] for key in whole.evaluated[:stop]}
    again = Counter(TINY, middle_budget(TINY), known=known)
    assert asng_search(again.candidates, options) == expected and again.evaluated == whole.evaluated[stop:]
    other = Counter(TINY, middle_budget(TINY))
    asng_search(other.candidates, AsngOptions(iterations=2, seed=5))
    assert other.evaluated[:4] != whole.evaluated[:4]


@pytest.mark.slow
def test_asng_finds_good_subnets_of_a_space_small_enough_to_enumerate():
    kept = None
    for seed in range(1, 4):
        counter = Counter(LITTLE, middle_budget(LITTLE))
        kept = kept or sorted(made_up_loss(s) for s in LITTLE.iterate() if counter.candidates.feasible(s))
        best = made_up_loss(asng_search(counter.candidates, AsngOptions(iterations=200, seed=seed)))
        assert kept.index(best) < 0.03 * len(kept) and len(counter.evaluated) < 0.45 * len(kept)


def test_an_answer_beyond_the_budgets_is_led_within_them():
    candidates = Counter(TINY, middle_budget(TINY)).candidates
    largest = candidates.genes.encode(TINY.largest())
    found = within_budgets(candidates, largest)
    assert candidates.feasible(candidates.genes.decode(found)) and found == within_budgets(candidates, largest)
    assert within_budgets(candidates, found) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [({"samples": 1}, "samples is 1"), ({"iterations": -1}, "iterations is -1"), ({"seed": -1}, "seed is -1")],
)
def test_bad_options_of_asng(options, message):
    with pytest.raises(InputError, match=message):
        AsngOptions(**options)
