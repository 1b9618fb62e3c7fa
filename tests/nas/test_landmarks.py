"""Subnets that need no search: manual scaling finds the depth that a budget allows."""

from __future__ import annotations

import pytest

from mos_fairseq.nas import Candidates, Constraint
from mos_fairseq.nas.landmarks import best_uniform, landmarks, most_landmarks, uniform_subnets
from mos_fairseq.search_space import SearchSpace
from tests.helpers import small_space

from .test_search import Counter

KEY = "params_without_embeddings"
WIDE = small_space(encoder_ffn_embed_dim=[64, 48, 32, 16], decoder_layers=[2, 1])


def size(subnet) -> float:
    return Counter.costs([subnet])[0][KEY]


def layers_and_width(subnets):
    """A cost by which one decoder layer and the widest encoder are larger than two layers and a narrow one."""
    return [{KEY: 30 * subnet.decoder_layers + subnet.encoder_ffn_embed_dim[0]} for subnet in subnets]


def depth_matters(subnet) -> float:
    return 5.0 - subnet.decoder_layers + 1 / size(subnet)


def candidates_within(space, limit, loss=depth_matters, costs=Counter.costs) -> tuple[Candidates, list[str]]:
    judged: list[str] = []

    def evaluate(subnets):
        judged.extend(subnet.key for subnet in subnets)
        return [loss(subnet) for subnet in subnets]

    return Candidates(space, costs, evaluate, [Constraint(KEY, limit)] if limit else []), judged


def test_a_better_depth_than_that_of_the_largest():
    uniform = uniform_subnets(WIDE)
    sizes = [row[KEY] for row in layers_and_width(uniform)]
    largest = [subnet for subnet, cost in zip(uniform, sizes, strict=True) if cost == 94]
    assert len(largest) >= 8 and {subnet.decoder_layers for subnet in largest} == {1}
    candidates, judged = candidates_within(WIDE, 94, costs=layers_and_width)
    found = best_uniform(candidates)
    assert (found.decoder_layers, found.encoder_ffn_embed_dim[0]) == (2, 32)
    assert 0 < len(judged) <= 20


@pytest.mark.parametrize("space", ["tiny", "wmt14_en_de", "bert_uniform", "bert_bottleneck", "wikitext103"])
def test_number_of_judged_subnets(space):
    space = SearchSpace.from_spec(space)
    half = 0.5 * (size(space.smallest()) + size(space.largest()))
    candidates, judged = candidates_within(space, half, loss=lambda subnet: 1 / size(subnet))
    found = landmarks(candidates)
    assert candidates.excess(candidates.costs_of([found["uniform"]])[0]) <= 0
    assert len(judged) == len(set(judged)) <= most_landmarks(candidates.constraints)
    assert found["uniform"].key in {subnet.key for subnet in uniform_subnets(space)}


def test_subnets_of_the_search_count():
    """One of equal layers that the search has examined may be the best."""
    candidates, judged = candidates_within(WIDE, 1e9, loss=size)  # the smaller the better
    best_uniform(candidates)
    smallest = WIDE.smallest()
    assert smallest.key not in judged
    candidates.losses([smallest])
    assert best_uniform(candidates) == smallest


def test_of_equal_sizes_that_with_most_heads_is_judged():
    """With a fixed q, heads do not change the number of parameters."""
    candidates, judged = candidates_within(WIDE, 1e9, loss=lambda subnet: -sum(subnet.decoder_attention_heads))
    found = best_uniform(candidates)
    assert set(found.decoder_attention_heads) == {max(WIDE["decoder_attention_heads"])}
    assert WIDE.largest().key in judged and found.decoder_layers == 2


def test_no_budget_or_none_that_is_kept():
    candidates, judged = candidates_within(WIDE, None)
    assert landmarks(candidates) == {"smallest": WIDE.smallest(), "largest": WIDE.largest()}
    assert len(judged) == 2 == most_landmarks([])
    candidates, judged = candidates_within(WIDE, 1)
    assert best_uniform(candidates) is None and judged == []
