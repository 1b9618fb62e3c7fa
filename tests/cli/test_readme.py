"""README's three steps, as they are typed: every command in order, on a corpus of a few sentences."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mos_fairseq.cost import subnet_cost
from mos_fairseq.latency.features import Features
from mos_fairseq.latency.predictor import fit_family
from mos_fairseq.search_space import SearchSpace, Subnet

from .conftest import ROOT

pytestmark = pytest.mark.slow

# reductions of the training and the search
SMALLER = {
    "--max-update 2600": "--max-update 2",
    "--population-size 40 --parents 12": "--population-size 8 --parents 3",
}
SMALLER |= {"--mutations 12 --crossovers 12": "--mutations 2 --crossovers 2", "--iterations 4": "--iterations 1"}
TYPED = {". .venv/bin/activate", "bash examples/quickstart.sh", "bash tests/run.sh"}
"""Lines that other tests run, or that this process has done."""


def lines_of_code() -> list[str]:
    """The lines of README's indented blocks that begin with a command, continuation lines joined."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^    .*\n)+", text, re.M)
    joined = "".join(blocks).replace("\\\n", " ")
    lines = [re.sub(r"\s+", " ", line.split(" #")[0]).strip() for line in joined.splitlines()]
    return [line for line in lines if re.match(r"(\. |bash |[A-Z]+=|mos-|fairseq-|pip )", line)]


@pytest.fixture
def folder(tmp_path, joined):
    """As the repository's root after the quickstart: data, and a predictor of latency that follows FLOPs."""
    (tmp_path / "mos_fairseq").symlink_to(ROOT / "mos_fairseq")
    quickstart = tmp_path / "runs" / "quickstart"
    quickstart.mkdir(parents=True)
    (quickstart / "data-bin").symlink_to(joined)
    space = SearchSpace.from_spec("tiny")
    subnets = [space.sample_subnet("readme", index) for index in range(40)]
    made_up = [subnet_cost(subnet).flops_without_output_projection / 1e6 for subnet in subnets]
    predictor = fit_family("ridge", Features.of_subnets(subnets, space), np.array(made_up), seed=1)
    replace(predictor, space=space).save(quickstart / "predictor.json")
    return tmp_path


def test_the_three_steps(commands, folder):
    variables: dict[str, str] = {}
    ran = []
    for line in lines_of_code():
        if line in TYPED:
            continue
        for typed, smaller in SMALLER.items():
            line = line.replace(typed, smaller)
        if found := re.fullmatch(r"([A-Z]+)=(\S+)", line):
            variables[found[1]] = found[2]
            continue
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        name, *words = shlex.split(line)
        done = commands.fork(name.removeprefix("fairseq-"), *words, cwd=folder)
        ran.append((name, done.out))
    assert [name for name, _ in ran] == ["fairseq-train", "mos-search", "mos-export", "fairseq-generate"]
    outputs = dict(ran)
    assert "trains random" in outputs["fairseq-train"] and "BLEU" in outputs["fairseq-generate"]
    assert "best of" in outputs["mos-search"] and "latency_ms<=" in outputs["mos-search"]
    assert Subnet.load(folder / "search" / "best.yaml")
    assert {"checkpoints", "search", "best.pt"} <= set(os.listdir(folder))
    assert not set(SMALLER) - {typed for typed in SMALLER if any(typed in line for line in lines_of_code())}


def test_the_two_commands_are_there():
    for line in ("bash examples/quickstart.sh", "bash tests/run.sh"):
        assert line in lines_of_code() and (Path(ROOT) / line.split()[1]).is_file()
