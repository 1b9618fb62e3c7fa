#!/usr/bin/env python3
"""What a split subnet looks like on slow and fast connections, on a space that was judged whole.

    python examples/studies/split/bandwidths.py DEVICE.json SERVER.json ROWS [RTT_MS]

DEVICE and SERVER are predictors of mos-latency fit --target split, of the space of examples/studies/search_quality,
whose 1,512 losses table.json tells: so the best subnet within a budget is known, and the search has to find it. The
budget lies a quarter of the way from the fastest subnet to the slowest, at each bandwidth. Prints a table, and writes
its rows.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

logging.disable(logging.INFO)

from mos_fairseq.latency import LatencyPredictor, SplitLatency  # noqa: E402
from mos_fairseq.nas import Candidates, Constraint, LinasOptions, linas_search  # noqa: E402
from mos_fairseq.search_space import SearchSpace, Subnet  # noqa: E402

TABLE = Path(__file__).parents[1] / "search_quality" / "table.json"
BANDWIDTHS = (0.1, 1.0, 10.0, 100.0)  # Mbit/s
PART = 0.25
KEY = "split_latency_ms"


def searched(space: SearchSpace, losses: dict[str, float], split: SplitLatency) -> dict[str, Any]:
    """The search's subnet at one bandwidth, beside the best that there is."""
    subnets = list(space.iterate())
    costs = {subnet.key: found for subnet, found in zip(subnets, split.costs(subnets), strict=True)}
    times = [found[KEY] for found in costs.values()]
    budget = Constraint(KEY, min(times) + PART * (max(times) - min(times)))

    def costs_of(wanted: Sequence[Subnet]) -> list[dict[str, float]]:
        return [costs[subnet.key] for subnet in wanted]

    candidates = Candidates(space, costs_of, lambda wanted: [losses[s.key] for s in wanted], [budget])
    linas_search(candidates, LinasOptions(KEY, 15, 7))
    found = min(candidates.seen.values(), key=lambda subnet: losses[subnet.key])
    best = min((s for s in subnets if costs[s.key][KEY] <= budget.limit), key=lambda subnet: losses[subnet.key])
    row = {"bandwidth_mbps": split.bandwidth_mbps, "budget_ms": round(budget.limit, 3), "judged": len(candidates.seen)}
    row |= {"loss": losses[found.key], "optimum": losses[best.key], "is_optimum": losses[found.key] == losses[best.key]}
    row |= {"width": found["encoder_embed_dim"], "ffn": list(found["encoder_ffn_embed_dim"])}
    row |= {"decoder_layers": found["decoder_layers"], "outputs": max(found.cross_spans)}
    row |= {key: round(value, 3) for key, value in costs[found.key].items()}
    placements = split.placements(found)
    return row | {f"all_on_{name}_ms": round(placements[name]["total_ms"], 3) for name in ("device", "server")}


def main(device: str, server: str, output: str, rtt_ms: str = "0") -> None:
    """Entry point."""
    data = json.loads(TABLE.read_text())
    space = SearchSpace.from_dict(data["space"])
    losses = {s.key: loss for s, loss in zip(space.iterate(), data["losses"], strict=True)}
    machines = [LatencyPredictor.load(path) for path in (device, server)]
    rows = [searched(space, losses, SplitLatency(*machines, mbps, float(rtt_ms))) for mbps in BANDWIDTHS]
    Path(output).write_text("".join(json.dumps(row) + "\n" for row in rows))
    print("| Mbit/s | width | outputs sent | bytes | encoder FFN | split | all on the server | loss | optimum |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [f"{row['bandwidth_mbps']:g}", row["width"], row["outputs"], f"{row['transfer_bytes']:,}"]
        cells += [" ".join(map(str, row["ffn"])), f"{row[KEY]:.1f} ms", f"{row['all_on_server_ms']:.1f} ms"]
        print("| " + " | ".join(map(str, [*cells, f"{row['loss']:.4f}", f"{row['optimum']:.4f}"])) + " |")


if __name__ == "__main__":
    main(*sys.argv[1:])
