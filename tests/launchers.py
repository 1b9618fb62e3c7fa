"""Train a tiny supernet in two processes, started by three launchers, and compare the parameters bit by bit.

The launchers are ``examples/tools/train_parallel.sh``, ``torchrun`` of ``fairseq-train``, and fairseq's own spawning.
The last two count GPUs: their processes see two simulated ones and do not use them (gloo).

    python tests/launchers.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.cli.conftest import training  # noqa: E402
from tests.spaces import EVEN_SPACE  # noqa: E402

# fairseq-train with two simulated GPUs that are not used
TWO_DEVICES = """
import torch
if __name__ == "__main__":
    torch.cuda.set_device, torch.cuda.device_count = lambda device: None, lambda: 2
    from fairseq_cli.train import cli_main
    cli_main()
"""


def corpus(folder: Path) -> Path:
    for split in ("train", "valid"):
        lines = [" ".join("abcdefgh"[(i * k) % 8] for k in range(1, 4 + i % 5)) for i in range(60)]
        (folder / f"{split}.xx").write_text("\n".join(lines) + "\n")
        (folder / f"{split}.yy").write_text("\n".join(lines).upper() + "\n")
    names = ["-s", "xx", "-t", "yy", "--trainpref", folder / "train", "--validpref", folder / "valid"]
    start("fairseq-preprocess", *names, "--joined-dictionary", "--destdir", folder / "bin")
    return folder / "bin"


def start(*command: object) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    python = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"PATH": path, "PYTHONPATH": python, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-4000:])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "space.yaml").write_text(yaml.safe_dump(EVEN_SPACE))
        (folder / "train.py").write_text(TWO_DEVICES)
        data = corpus(folder)
        more = ["--mos-routing", "neuron", "--max-update", 6, "--disable-validation", "--no-epoch-checkpoints"]

        def arguments(launcher: str) -> list[object]:
            return training(data, folder / launcher, *more, space=folder / "space.yaml")

        together = ["--distributed-world-size", 2, "--distributed-backend", "gloo"]
        script, port = folder / "train.py", "tcp://127.0.0.1:29617"
        start("bash", ROOT / "examples" / "tools" / "train_parallel.sh", 2, *arguments("train_parallel.sh"))
        start("torchrun", "--standalone", "--nproc-per-node", 2, script, *arguments("torchrun"), *together)
        start(sys.executable, script, *arguments("spawn"), *together, "--distributed-init-method", port)
        launchers = ["train_parallel.sh", "torchrun", "spawn"]
        models = [torch.load(folder / name / "checkpoint_last.pt", weights_only=False) for name in launchers]
        for launcher, found in zip(launchers, models, strict=True):
            pairs = [(tensor, models[0]["model"][key]) for key, tensor in found["model"].items()]
            different = sum(not torch.equal(*pair) for pair in pairs)
            updates = found["optimizer_history"][-1]["num_updates"]
            print(f"{launcher}: {updates} updates by 2 processes, {different} of {len(pairs)} tensors differ")
            if different or updates != 6:
                sys.exit(1)


if __name__ == "__main__":
    main()
