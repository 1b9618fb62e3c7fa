"""Steps of studies: done once, by one script at a time, under the settings of the first run."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

from .conftest import EXAMPLES

HEAD = f'set -euo pipefail; work=$1; . "{EXAMPLES}/tools/steps.sh"; '


def script(tmp_path, lines: str) -> list[str]:
    return ["bash", "-c", HEAD + lines, "bash", str(tmp_path)]


def test_a_step_is_done_once(tmp_path):
    lines = 'step one bash -c "echo said; echo x >>$work/count"; step one false; echo end'
    done = subprocess.run(script(tmp_path, lines), capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["one", "end"]
    assert (tmp_path / "one.log").read_text() == "said\n" and (tmp_path / "count").read_text() == "x\n"


def test_a_failed_step_ends_the_script_and_is_tried_again(tmp_path):
    lines = 'step one bash -c "echo first >&2; echo last >&2; exit 3"; echo end'
    done = subprocess.run(script(tmp_path, lines), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "last\n") and "end" not in done.stdout
    subprocess.run(script(tmp_path, "step one true; step two true"), check=True, capture_output=True)
    assert (tmp_path / "two.done").exists()


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock")
def test_another_script_waits_for_the_same_step(tmp_path):
    waiting = "while [ ! -e $work/go ]; do sleep 0.05; done"
    lines = f'step one bash -c "echo begin >>$work/said; {waiting}; echo end >>$work/said"'
    both = [subprocess.Popen(script(tmp_path, lines), stdout=subprocess.DEVNULL)]
    while not (tmp_path / "said").exists():
        time.sleep(0.02)
    both.append(subprocess.Popen(script(tmp_path, lines + "; echo other >>$work/said"), stdout=subprocess.DEVNULL))
    time.sleep(0.3)
    (tmp_path / "go").touch()
    assert [process.wait(timeout=20) for process in both] == [0, 0]
    assert (tmp_path / "said").read_text().split() == ["begin", "end", "other"]


def test_other_settings_are_refused(tmp_path):
    lines = 'keep_settings study "A=1 B=$B"; echo kept'

    def run(b):
        return subprocess.run(script(tmp_path, f"B={b}; {lines}"), capture_output=True, text=True)

    assert [run(2).stdout, run(2).stdout] == ["kept\n", "kept\n"]
    refused = run(3)
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr == (
        f"error: the settings are A=1 B=3: those of {tmp_path} are A=1 B=2; give another folder, or these\n"
    )
