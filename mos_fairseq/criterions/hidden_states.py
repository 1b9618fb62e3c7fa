"""Distance of a student's layer outputs from a teacher's (as FlowNAS aligns features, and MoS-BERT hidden states)."""

from __future__ import annotations

from torch import Tensor

LAYER_PAIRINGS = ("uniform", "last")


def pair_layers(num_students: int, num_teachers: int, pairing: str) -> list[tuple[int, int]]:
    """Return a (student layer, teacher layer) for every layer of a student that is no deeper than the teacher.

    Pairs count from 0; the last layers are always paired. ``uniform``: layer j of n (counted from 1) is paired with
    layer ceil(j N / n) of N. ``last``: with layer j + N - n, so the last n layers of the teacher are used.

    Raises:
        ValueError: the student is deeper, or ``pairing`` is not one of ``LAYER_PAIRINGS``.
    """
    if not 0 < num_students <= num_teachers:
        raise ValueError(f"num_students is {num_students}: allowed are 1 to {num_teachers}, the teacher's layers")
    if pairing not in LAYER_PAIRINGS:
        raise ValueError(f"pairing is {pairing}: allowed are {', '.join(LAYER_PAIRINGS)}")
    if pairing == "last":
        return [(i, i + num_teachers - num_students) for i in range(num_students)]
    return [(i, -(-(i + 1) * num_teachers // num_students) - 1) for i in range(num_students)]


def hidden_distance(students: list[Tensor], teachers: list[Tensor], padding: Tensor, pairing: str) -> list[Tensor]:
    """Return the mean squared difference of each pair of layers, over real tokens and common channels.

    A subnet's channels are the first channels of the largest subnet. So a narrower student is compared with the first
    channels of its teacher, without a learned map.

    Args:
        students, teachers: layer outputs [T, B, d]; a teacher's d is at least its student's.
        padding: [B, T], True where there is no token.
    """
    real = (~padding).t().float()
    distances = []
    for i, j in pair_layers(len(students), len(teachers), pairing):
        student = students[i].float()
        square = (student - teachers[j][..., : student.size(-1)].float()).square().mean(-1)
        distances.append((square * real).sum() / real.sum())
    return distances
