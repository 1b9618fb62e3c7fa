#!/usr/bin/env python3
"""Choose architectures that span a space's costs evenly, and write them as a01.yaml, a02.yaml, …

    python examples/studies/sampling/architectures.py SPACE NUMBER FOLDER

The first is the smallest, the last the largest; the others are the nearest of 4,000 draws to equal steps of FLOPs
(without the output projection).
"""

from __future__ import annotations

import sys
from pathlib import Path

from mos_fairseq.cost import subnet_cost
from mos_fairseq.search_space import SearchSpace, Subnet

DRAWS = 4000


def cost(subnet: Subnet) -> int:
    """FLOPs without the output projection."""
    return subnet_cost(subnet).flops_without_output_projection


def chosen(space: SearchSpace, number: int) -> list[Subnet]:
    """``number`` subnets from the smallest to the largest, none twice."""
    ends = space.smallest(), space.largest()
    drawn = {subnet.key: subnet for subnet in (space.sample_subnet("architectures", i) for i in range(DRAWS))}
    rest = [subnet for key, subnet in sorted(drawn.items()) if subnet not in ends]
    costs = {subnet: cost(subnet) for subnet in rest}
    low, high = map(cost, ends)
    found = []
    for step in range(1, number - 1):
        wanted = low + (high - low) * step / (number - 1)
        found.append(min(rest, key=lambda subnet: abs(costs[subnet] - wanted)))
        rest.remove(found[-1])
    return [ends[0], *found, ends[1]]


def main(argv: list[str]) -> None:
    """Command line."""
    if len(argv) != 3 or not argv[1].isdecimal() or int(argv[1]) < 3:
        sys.exit(__doc__)
    folder = Path(argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for index, subnet in enumerate(chosen(SearchSpace.from_spec(argv[0]), int(argv[1])), start=1):
        subnet.save(folder / f"a{index:02}.yaml")
        print(f"a{index:02} {cost(subnet) / 1e6:8.2f} MFLOPs  {subnet.summary()}")


if __name__ == "__main__":
    main(sys.argv[1:])
