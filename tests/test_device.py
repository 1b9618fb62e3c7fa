"""Queries to a GPU's driver, and the content of files without one."""

from __future__ import annotations

import os

import pytest

from mos_fairseq.device import check_device, gpu_clocks, gpu_facts
from mos_fairseq.errors import InputError

PROGRAM = """#!/bin/sh
echo "$@" >"$(dirname "$0")/asked"
case "$*" in
*max.sm*) echo "570.86.10, 1980 MHz, 2619 MHz, 700.00 W" ;;
*) echo "1755, [N/A]" ;;
esac
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A folder with the driver's program."""
    program = tmp_path / "nvidia-smi"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_facts_and_clocks(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    facts = {"driver": "570.86.10", "max_sm_clock": "1980 MHz", "max_memory_clock": "2619 MHz"}
    assert gpu_facts(1) == facts | {"power_limit": "700.00 W"}
    assert "--id=5" in (driver / "asked").read_text()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu_clocks(None) == {"sm_clock_mhz": 1755.0}
    assert "--id=0" in (driver / "asked").read_text()


def test_without_an_answer_there_are_none(driver, monkeypatch):
    (driver / "nvidia-smi").write_text("#!/bin/sh\necho No devices were found; exit 6\n")
    assert gpu_facts(0) == {} and gpu_clocks(0) == {}
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpu_facts(0) == {} and gpu_clocks(0) == {}


@pytest.mark.parametrize("name", ["cuda:7", "gpu", "mps"])
def test_devices_that_are_not_there_are_refused(name):
    with pytest.raises(InputError, match=f"device is {name}"):
        check_device(name)
    check_device("cpu")
