"""Time of large caches, files and spaces, at a quarter of the size and at the whole, and their memory at a sixteenth
and a quarter of it, since watching the memory takes several times as long; a table on stdout.

python tests/load.py [--part 1.0]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from mos_fairseq.cost import CostOptions, subnet_cost  # noqa: E402
from mos_fairseq.latency import read_latencies  # noqa: E402
from mos_fairseq.latency.measured import FORMAT  # noqa: E402
from mos_fairseq.nas import Candidates  # noqa: E402
from mos_fairseq.nas.judged import JudgedSubnets  # noqa: E402
from mos_fairseq.nas.pareto import front  # noqa: E402
from mos_fairseq.nas.results import report, row, write_results  # noqa: E402
from mos_fairseq.search_space import SearchSpace, Subnet  # noqa: E402

logging.disable(logging.INFO)
_WIDTHS = [3072, 2560, 2048, 1536, 1024]
SPACE = SearchSpace.from_dict(SearchSpace.from_spec("wmt14_en_de").to_dict() | {"decoder_ffn_embed_dim": _WIDTHS})
assert SPACE.size >= 10**15
OPTIONS = CostOptions()
_LONG = 0.5  # seconds; what is shorter says nothing about how time grows


def draw(number: int) -> list[Subnet]:
    return [SPACE.sample_subnet("load", i) for i in range(number)]


def loss_of(subnet: Subnet) -> float:
    return 5 - subnet_cost(subnet, OPTIONS).params_without_embeddings / 1e8 + hash(subnet.key) % 1000 / 5000


def candidates_of(subnets: list[Subnet]) -> Candidates:
    def costs(them):
        return [subnet_cost(subnet, OPTIONS).to_dict() for subnet in them]

    candidates = Candidates(SPACE, costs, lambda them: [loss_of(subnet) for subnet in them])
    candidates.losses(subnets)
    return candidates


def jobs(folder: Path) -> dict[str, tuple[int, Callable[[int], Callable[[], object]]]]:
    """Return name -> (full size, function that prepares a size and returns the measured call)."""

    def judged(number: int) -> Callable[[], object]:
        file = folder / f"judged{number}.jsonl"
        lines = (json.dumps({"key": subnet.key, "loss": 3.25}) for subnet in draw(number))
        file.write_text("".join(line + "\n" for line in lines))
        evaluator = SimpleNamespace(options=SimpleNamespace(objective="loss"))
        return lambda: JudgedSubnets(file, evaluator).file.close()

    def latencies(number: int) -> Callable[[], object]:
        file = folder / f"latency{number}.jsonl"
        header = {"format": FORMAT, "search_space": SPACE.to_dict(), "options": {}, "machine": {}, "reference_ms": 9.0}
        times = ({"raw_latency_ms": 9.0 + i % 7, "reference_ms": 8.0 + i % 3} for i in range(number))
        rows = ({"subnet": subnet.to_dict()} | time for subnet, time in zip(draw(number), times, strict=True))
        file.write_text("".join(json.dumps(found) + "\n" for found in (header, *rows)))
        return lambda: read_latencies(file)

    def a_front(number: int) -> Callable[[], object]:
        candidates = candidates_of(draw(number))
        return lambda: front(candidates, list(candidates.seen.values()), "flops_without_output_projection")

    def results(number: int) -> Callable[[], object]:
        candidates = candidates_of(draw(number))

        def write() -> None:
            found = report(candidates, None, "flops_without_output_projection", "loss")
            write_results(folder, found, [row(candidates, subnet, "loss") for subnet in candidates.seen.values()])

        return write

    def drawing(number: int) -> Callable[[], object]:
        return lambda: draw(number)

    def looking_up(number: int) -> Callable[[], object]:
        subnets = draw(number)
        return lambda: candidates_of(subnets)

    return {
        "cache of judged subnets, read": (10_000, judged),
        "subnets judged and looked up in a search": (10_000, looking_up),
        "front of judged subnets": (10_000, a_front),
        "results and page of a search": (10_000, results),
        f"subnets drawn from {SPACE.size:.1g}": (10_000, drawing),
        "measurements of latency, read": (100_000, latencies),
    }


def seconds_of(call: Callable[[], object]) -> float:
    """Return processor time, which excludes other work on the machine; for short runs, the fastest of several.

    The first run may compute what later ones find, so there are at least two of what takes less than two seconds.
    """
    runs: list[float] = []
    while not runs or (len(runs) == 1 and runs[0] < 2) or (sum(runs) < 0.3 and len(runs) < 20):
        begin = time.process_time()
        call()
        runs.append(time.process_time() - begin)
    return min(runs)


def megabytes_of(call: Callable[[], object]) -> float:
    """Return the peak."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=float, default=1.0, help="of the full sizes")
    args = parser.parse_args()
    worst = 0.0
    print("| what | number | seconds | MB of a quarter | time for four times as many | memory |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, (full, prepare) in jobs(Path(folder)).items():
            number = int(full * args.part)
            quarter, seconds = (seconds_of(prepare(size)) for size in (number // 4, number))
            little, megabytes = (megabytes_of(prepare(size)) for size in (number // 16, number // 4))
            longer, larger = seconds / quarter, megabytes / little
            worst = max(worst, larger, longer if seconds > _LONG else 0.0)
            grown = f"x {longer:.1f} | x {larger:.1f}"
            print(f"| {name} | {number:,} | {seconds:.2f} | {megabytes:.1f} | {grown} |", flush=True)
    sys.exit(int(worst > 8))  # 4 where it is proportional; 16 where it is quadratic


if __name__ == "__main__":
    main()
