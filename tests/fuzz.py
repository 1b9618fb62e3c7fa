"""Mutated input files: each is either read, or refused with one clear line, quickly; a table of the counts on stdout.

python tests/fuzz.py [--examples 1000] [--seed 1]      # 1,000 of each of nine kinds
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import random
import string
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import yaml  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from hydra.errors import HydraException  # noqa: E402
from hypothesis import HealthCheck, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from omegaconf.errors import OmegaConfBaseException  # noqa: E402

from mos_fairseq.compat.literals import evaluate_literal  # noqa: E402
from mos_fairseq.errors import InputError  # noqa: E402
from mos_fairseq.latency import Features, LatencyPredictor, read_hat_csv, read_latencies  # noqa: E402  # noqa: E402
from mos_fairseq.latency.measured import FORMAT, HAT_COLUMNS, HAT_LATENCIES  # noqa: E402
from mos_fairseq.latency.predictor import fit_predictor  # noqa: E402
from mos_fairseq.nas.judged import JudgedSubnets  # noqa: E402
from mos_fairseq.search_space import SearchSpace, resolve_subnet  # noqa: E402
from tests.helpers import small_space  # noqa: E402
from tests.spaces import SMALL_SPACE  # noqa: E402

logging.disable(logging.INFO)
SPACE = small_space()
SUBNET = SPACE.sample_subnet("fuzz")
SECONDS = 2.0  # on a busy machine; the slowest inputs take some hundredths
ODD = [None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "x", "7", []]
ODD += [{}, [[]], [None], ["a"], {"a": 1}, "${oc.env:HOME}", "<script>alert(1)</script>", "!!python/object"]
ODD += ["ü\x00\u2028"]
LINES = ["!!python/object/apply:os.system ['touch hacked']", "&a [*a, *a]", "<<: *x", "? [1]\n: 2", "\t- x", "---\n---"]
LINES += ["a: &a [1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b]"]
LINES += ['{"a":' * 3000, "[" * 2000, "%YAML 9.9", "- {", "é: \xa0"]


# --- mutations ---


def mutate_tree(draw: random.Random, data: Any) -> Any:
    """One to four changes somewhere in nested lists and dictionaries: values, keys, lengths."""
    data = copy.deepcopy(data)
    for _ in range(draw.randint(1, 4)):
        node = data
        while True:
            children = list(node.keys()) if isinstance(node, dict) else list(range(len(node)))
            if not children:
                break
            key = draw.choice(children)
            if isinstance(node[key], (dict, list)) and node[key] and draw.random() < 0.7:
                node = node[key]
                continue
            _change(draw, node, key)
            break
    return data


def _change(draw: random.Random, node: Any, key: Any) -> None:
    kind = draw.randrange(5)
    if kind == 0:
        del node[key]
    elif kind == 1:
        node[key] = copy.deepcopy(draw.choice(ODD))
    elif kind == 2 and isinstance(node, dict):
        text = "".join(draw.choices(string.printable, k=draw.randint(0, 9)))
        node[draw.choice([text, text, "self", 1, True, None])] = copy.deepcopy(node[key])
    elif kind == 3 and isinstance(node, list):
        node.extend(copy.deepcopy(node[key]) for _ in range(draw.randint(1, 40)))
    elif isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
        node[key] = node[key] * draw.choice([-1, 2, 0.5, 1000]) + draw.choice([0, 1, -1])


def mutate_text(draw: random.Random, data: bytes) -> bytes:
    """A few bytes changed, cut, doubled or put in."""
    content = bytearray(data)
    for _ in range(draw.randint(1, 5)):
        at, length = draw.randint(0, len(content)), draw.randint(1, 30)
        kind = draw.randrange(5)
        if kind == 0:
            del content[at : at + length]
        elif kind == 1:
            content[at:at] = content[at : at + length] * draw.randint(1, 3)
        elif kind == 2:
            content[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 3:
            content[at:at] = draw.choice(LINES).encode() + b"\n"
        else:
            content[at:at] = draw.choice("{}[]:,-\"'#&*!|>%@`\n\t ").encode()
    return bytes(content[: 2 * len(data) + 20_000])


# --- what is read ---


class _NoEvaluator:
    options = None


class Targets:
    """Return name -> (a good file's data, its writer, its reader); with real files below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        times = [{"raw_latency_ms": 10.0 + i % 7, "reference_ms": 9.0 + i % 2, "std_ms": 0.5} for i in range(24)]
        rows = [{"subnet": SPACE.sample_subnet("row", i).to_dict()} | time for i, time in enumerate(times)]
        header = {"format": FORMAT, "search_space": SPACE.to_dict(), "options": {"beam": 5}, "machine": {"cpu": "x"}}
        self.latencies = [header | {"reference_ms": 9.5}, *rows]
        self.predictor = self._predictor(rows)
        hydra = {"task": {"search_space": "tiny", "num_random_subnets": 2}, "model": {"num_experts": 2}}
        hydra |= {"optimization": {"lr": [0.001]}, "optimizer": {"adam_betas": "(0.9, 0.98)"}}
        judged = [{"key": row_subnet, "loss": 3.5} for row_subnet in (SUBNET.key, SPACE.largest().key)]
        numbers = [dict.fromkeys((*HAT_COLUMNS, *HAT_LATENCIES), 2.5) for _ in range(3)]
        hat = {f"{key.replace('_', '-')}-subtransformer": value for key, value in SUBNET.to_dict().items()}
        self.kinds: dict[str, tuple[Any, Callable[[Any], str], Callable[[Path], object]]] = {
            "search space": (SMALL_SPACE, yaml.safe_dump, lambda path: SearchSpace.from_spec(str(path))),
            "subnet": (SUBNET.to_dict(), yaml.safe_dump, lambda path: resolve_subnet(str(path), SPACE)),
            "HAT's subnet": (hat, yaml.safe_dump, lambda path: resolve_subnet(str(path), SPACE)),
            "inline subnet": (SUBNET.to_dict(), json.dumps, self._inline),
            "Hydra recipe": (hydra, yaml.safe_dump, self._hydra),
            "latency JSONL": (self.latencies, _lines, read_latencies),
            "judged subnets": (judged, _lines, lambda path: JudgedSubnets(path, _NoEvaluator()).file.close()),
            "predictor": (self.predictor, json.dumps, self._predict),
            "HAT's CSV": (numbers, _csv, read_hat_csv),
        }

    def _predictor(self, rows: list[dict]) -> dict:
        subnets = [SPACE.sample_subnet("row", i) for i in range(len(rows))]
        features = Features.of_subnets(subnets, SPACE)
        predictor, _ = fit_predictor(features, [row["raw_latency_ms"] for row in rows], SPACE, 2)
        predictor.save(self.folder / "predictor.json")
        return json.loads((self.folder / "predictor.json").read_text())

    @staticmethod
    def _inline(path: Path) -> object:
        return resolve_subnet("{" + path.read_bytes().decode("utf-8", "replace").strip().removeprefix("{"), SPACE)

    @staticmethod
    def _predict(path: Path) -> object:
        predictor = LatencyPredictor.load(path)
        return predictor.predict([predictor.space.largest()]) if predictor.space else None

    @staticmethod
    def _hydra(path: Path) -> object:
        """Composed as fairseq-hydra-train does, with the search space that it names."""
        # fairseq's; Hydra keeps it for the process, and a later one would break fairseq's own commands in it
        with initialize_config_dir(str(path.parent), version_base="1.1"):
            cfg = OmegaConf.to_container(compose(path.stem), resolve=True)
        task = cfg.get("task") if isinstance(cfg, dict) else None
        space = task.get("search_space") if isinstance(task, dict) else None
        evaluated = (cfg.get("optimizer") or {}) if isinstance(cfg, dict) else {}
        if isinstance(evaluated, dict) and isinstance(evaluated.get("adam_betas"), str):
            evaluate_literal(evaluated["adam_betas"])
        return SearchSpace.from_spec(space) if isinstance(space, str) else None


def _lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _csv(rows: list[Any]) -> str:
    rows = [row for row in rows if isinstance(row, dict)]
    names = list(rows[0]) if rows else []
    return "\n".join(",".join(map(str, line)) for line in [names, *(row.values() for row in rows)]) + "\n"


def read_one(targets: Targets, kind: str, number: int) -> str:
    """Mutate by ``number``, read; returns "read" or "refused".

    Raises:
        AssertionError: another exception, more than one line, or too slow.
    """
    data, write, read = targets.kinds[kind]
    draw = random.Random(number)
    try:
        content = write(mutate_tree(draw, data)).encode("utf-8", "replace") if draw.random() < 0.6 else None
    except (ValueError, yaml.YAMLError):  # unwritable data is no input
        content = None
    if content is None or draw.random() < 0.2:
        content = mutate_text(draw, content or write(data).encode())
    path = targets.folder / "input file.yaml"
    path.write_bytes(content)
    begin = time.process_time()
    try:
        read(path)
        outcome = "read"
    except InputError as error:
        outcome = "refused"
        assert str(error).strip() and len(str(error).splitlines()) == 1, f"{kind} {number}: not one line: {error!r}"
        assert len(str(error)) < 2000, f"{kind} {number}: {len(str(error))} characters"
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError, RecursionError):
        assert kind == "Hydra recipe", number
        outcome = "refused"  # by Hydra, which reports these itself
    except BaseException as error:
        raise AssertionError(f"{kind} {number}: {type(error).__name__}: {error}") from error
    assert (taken := time.process_time() - begin) < SECONDS, f"{kind} {number}: {taken:.1f} s"
    return outcome


def fuzz(kind: str, examples: int, number: int, folder: Path) -> dict[str, int]:
    """Return the counts of read and of refused files."""
    targets, counts = Targets(folder), {"read": 0, "refused": 0}

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**60))
    def check(draw: int) -> None:
        counts[read_one(targets, kind, draw)] += 1

    check()
    return counts


def kinds() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return list(Targets(Path(folder)).kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    total = 0
    print("| input | read | refused in one line |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds():
            counts = fuzz(kind, args.examples, args.seed, Path(folder))
            total += sum(counts.values())
            print(f"| {kind} | {counts['read']} | {counts['refused']} |", flush=True)
    print(f"{total} mutated inputs, no other outcome")


if __name__ == "__main__":
    main()
