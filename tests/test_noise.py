"""Commands filter recurring third-party messages unless requested; programs keep their own filters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
KNOWN = (
    "\nThe version_base parameter is not specified.\nPlease …",
    "hydra.experimental.compose() is no longer experimental. Use hydra.compose()",
    "'pin_memory' argument is set as true but no accelerator is found, then …",
    "`torch.cuda.amp.autocast(args...)` is deprecated. Please use …",
    "Support for mismatched key_padding_mask and attn_mask is deprecated. Use …",
)
# the warnings and logs of a command or a program, without torch
SPEAK = f"""
import logging, sys, warnings
sys.argv = [sys.argv[1]]
logging.basicConfig(level=logging.DEBUG)
from mos_fairseq import noise
from mos_fairseq.compat.commands import running_command
if running_command() is not None:
    noise.leave_out_known()
    noise.leave_out_known()
for message in {KNOWN!r}:
    warnings.warn(message, FutureWarning)
warnings.warn("something new", FutureWarning)
logging.getLogger("hydra.core.utils").debug("Setting JobRuntime:name=utils")
logging.getLogger("fairseq.tasks.text_to_speech").info("Please install tensorboardX")
for _ in range(3):
    logging.getLogger("sacrebleu").warning("It looks like you forgot to detokenize")
logging.getLogger("fairseq.trainer").info("begin training epoch 1")
"""


def said(name: str, *options: str, **environment: str) -> str:
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONWARNINGS", "LOGLEVEL")}
    variables |= {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, *options, "-c", SPEAK, name]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60).stderr


def test_known_messages_are_left_out():
    found = said("mos-cost").splitlines()
    assert [line for line in found if not line.startswith("  ")] == [
        next(line for line in found if line.endswith("FutureWarning: something new")),
        "WARNING:sacrebleu:It looks like you forgot to detokenize",
        "INFO:fairseq.trainer:begin training epoch 1",
    ]


@pytest.mark.parametrize("name, environment", [("mos-cost", {"MOS_FAIRSEQ_VERBOSE": "1"}), ("-c", {})])
def test_all_is_said_where_it_is_wanted_and_in_programs(name, environment):
    found = said(name, **environment)  # "-c" is a program, in which importing the package registers everything
    assert all(message.strip().splitlines()[0] in found for message in KNOWN)
    assert "JobRuntime" in found and "tensorboardX" in found and found.count("forgot to detokenize") == 3


def test_the_users_own_filters_come_first():
    assert "FutureWarning: hydra.experimental.compose()" in said("mos-cost", "-W", "always::FutureWarning")
    assert "JobRuntime" in said("mos-cost", LOGLEVEL="DEBUG")


def test_the_start_of_a_command_says_nothing(tmp_path):
    """Torch, fairseq and this plugin, as mos-* commands import them."""
    code = "import sys; sys.argv = ['mos-search']; from mos_fairseq.cli import start; start(); import fairseq.tasks"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
