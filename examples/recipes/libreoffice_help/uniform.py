#!/usr/bin/env python3
"""The baseline of manual scaling: the same sizes in every layer, at the latency of a search's winner.

    python examples/recipes/libreoffice_help/uniform.py PREDICTOR BUDGET_MS WINNER OUTPUT.yaml

Among all subnets with equal layers and sides that attend to the last encoder layer and have a predicted latency within
5 % of the winner's (so it may exceed the budget by that much), it writes the one with the most parameters; among equal
ones, the nearest. If there is none, it writes the slowest one within the budget. WINNER is the winner's YAML file, or
its predicted latency in ms.
"""

from __future__ import annotations

import itertools
import logging
import math
import sys
from collections.abc import Sequence

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

from mos_fairseq.cost import subnet_cost  # noqa: E402
from mos_fairseq.latency import LatencyPredictor  # noqa: E402
from mos_fairseq.search_space import SearchSpace, Subnet, resolve_subnet  # noqa: E402

NEAR = 0.05  # of the winner's latency


def uniform_subnets(space: SearchSpace) -> list[Subnet]:
    """Return all subnets of ``space`` with equal layers and sides."""
    sizes = (space.encoder_embed_dim, space.encoder_ffn_embed_dim, space.encoder_attention_heads)
    found = []
    for dim, ffn, heads, depth in itertools.product(*sizes, space.decoder_layers):
        layers = space.encoder_layers[0]
        subnet = Subnet(
            encoder_embed_dim=dim,
            decoder_embed_dim=dim,
            encoder_layers=layers,
            decoder_layers=depth,
            encoder_ffn_embed_dim=(ffn,) * layers,
            encoder_attention_heads=(heads,) * layers,
            decoder_ffn_embed_dim=(ffn,) * depth,
            decoder_attention_heads=(heads,) * depth,
            decoder_ende_attention_heads=(heads,) * depth,
            decoder_arbitrary_ende_attn=(-1,) * depth,
            qkv_dim=space.qkv_dim,
            head_dim=space.head_dim,
        )
        space.check(subnet)
        found.append(subnet)
    return found


def choose(subnets: Sequence[Subnet], times: Sequence[float], winner_ms: float, budget: float) -> Subnet | None:
    """Return the uniform subnet to compare with a winner that takes ``winner_ms``; None if all miss the budget, and
    none has a latency near the winner's."""
    near = [(ms, s) for s, ms in zip(subnets, times, strict=True) if abs(ms - winner_ms) <= NEAR * winner_ms]
    if near:  # heads change only the time, not the parameters
        return max(near, key=lambda found: (parameters(found[1]), -abs(found[0] - winner_ms)))[1]
    kept = [(ms, subnet) for subnet, ms in zip(subnets, times, strict=True) if ms <= budget]
    return max(kept, key=lambda found: found[0])[1] if kept else None


def parameters(subnet: Subnet) -> int:
    """Embeddings aside."""
    return subnet_cost(subnet).params_without_embeddings


def milliseconds(text: str) -> float:
    """A duration. ValueError if ``text`` is none."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


def main(argv: list[str]) -> None:
    """Command line."""
    if len(argv) != 4:
        sys.exit(__doc__)
    predictor_path, limit, winner, output = argv
    try:
        budget = milliseconds(limit)
    except ValueError:
        sys.exit(f"error: budget {limit}: allowed are positive numbers, of milliseconds")
    predictor = LatencyPredictor.load(predictor_path)
    if predictor.space is None:
        sys.exit(f"error: {predictor_path}: fitted on averages, it has no search space")
    try:
        winner_ms = milliseconds(winner)
    except ValueError:
        winner_ms = float(predictor.predict([resolve_subnet(winner, predictor.space)])[0])
    subnets = uniform_subnets(predictor.space)
    times = predictor.predict(subnets).tolist()
    chosen = choose(subnets, times, winner_ms, budget)
    if chosen is None:
        sys.exit(f"error: budget {budget} ms: the fastest uniform subnet takes {min(times):.2f} ms")
    chosen.save(output)
    print(f"{output}: {times[subnets.index(chosen)]:.2f} ms, {chosen.summary()}")


if __name__ == "__main__":
    main(sys.argv[1:])
