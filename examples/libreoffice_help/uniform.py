#!/usr/bin/env python3
"""The baseline that one would scale by hand: the same sizes in every layer, as large as a latency budget allows.

    python examples/libreoffice_help/uniform.py PREDICTOR BUDGET_MS OUTPUT.yaml

Of all subnets with equal layers and sides, attending to the last encoder layer, it writes the one with the most
parameters whose predicted latency is within the budget.
"""

from __future__ import annotations

import itertools
import logging
import sys

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

from mos_fairseq.benchmark import subnet_cost  # noqa: E402
from mos_fairseq.nas import LatencyPredictor  # noqa: E402
from mos_fairseq.search_space import SearchSpace, Subnet  # noqa: E402


def uniform_subnets(space: SearchSpace) -> list[Subnet]:
    """All subnets of ``space`` whose layers and sides are equal."""
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


def main(predictor_path: str, budget: float, output: str) -> None:
    """Command line."""
    predictor = LatencyPredictor.load(predictor_path)
    if predictor.space is None:
        sys.exit(f"error: {predictor_path}: fitted on averages, it has no search space")
    subnets = uniform_subnets(predictor.space)
    times = predictor.predict(subnets).tolist()
    kept = [subnet for subnet, ms in zip(subnets, times, strict=True) if ms <= budget]
    if not kept:
        sys.exit(f"error: budget {budget} ms: the fastest uniform subnet takes {min(times):.2f} ms")
    chosen = max(kept, key=lambda subnet: subnet_cost(subnet).params_without_embeddings)
    chosen.save(output)
    print(f"{output}: {times[subnets.index(chosen)]:.2f} ms, {chosen.summary()}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        milliseconds = float(sys.argv[2])
    except ValueError:
        sys.exit(f"error: budget {sys.argv[2]}: allowed are numbers, of milliseconds")
    main(sys.argv[1], milliseconds, sys.argv[3])
