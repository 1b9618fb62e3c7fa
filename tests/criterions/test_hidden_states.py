"""Which layers of a student and its teacher meet, and how far they are from each other."""

import pytest
import torch

from mos_fairseq.criterions.hidden_states import hidden_distance, pair_layers
from tests.seeds import moved


@pytest.mark.parametrize(
    ("students", "teachers", "uniform", "last"),
    [
        (3, 3, [0, 1, 2], [0, 1, 2]),
        (1, 6, [5], [5]),
        (2, 3, [1, 2], [1, 2]),
        (2, 6, [2, 5], [4, 5]),
        (4, 6, [1, 2, 4, 5], [2, 3, 4, 5]),
        (5, 6, [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
    ],
)
def test_pairs(students, teachers, uniform, last):
    assert pair_layers(students, teachers, "uniform") == list(enumerate(uniform))
    assert pair_layers(students, teachers, "last") == list(enumerate(last))


@pytest.mark.parametrize(("pairing", "partners"), [("uniform", [1, 3]), ("last", [2, 3])])
def test_distance_over_real_tokens_and_shared_channels(pairing, partners):
    generator = torch.Generator().manual_seed(moved(1))
    students = [torch.randn(5, 3, 4, generator=generator, dtype=torch.float16) for _ in range(2)]
    teachers = [torch.randn(5, 3, 7, generator=generator) for _ in range(4)]
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[0, 3:] = padding[2, 0] = True
    distances = hidden_distance(students, teachers, padding, pairing)
    for i, partner in enumerate(partners):
        squares = []
        for b in range(3):
            for t in range(5):
                if not padding[b, t]:
                    for c in range(4):
                        squares.append((float(students[i][t, b, c]) - float(teachers[partner][t, b, c])) ** 2)
        assert distances[i].item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)
    assert len(distances) == 2
