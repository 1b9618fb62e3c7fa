"""Largest difference between parameters after data parallel training and after a single process's with the matching
--update-freq, for each number of processes, backend, way of sampling and routing; and, of trainings that were
resumed, after these and uninterrupted ones; a table on stdout.

    python tests/data_parallel_table.py [--quick] [--json] [--task language_modeling_mos]

--quick trains two epochs of three updates, and only translation in all settings: what they have in common is no task's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests import processes  # noqa: E402

UPDATES, QUICK = 24, 6  # 6 mini-batches an epoch: four processes meet empty ones
NO_DROPOUT = [
    x for kind in ("dropout", "attention-dropout", "activation-dropout", "router-dropout") for x in (f"--{kind}", 0)
]
# Adam divides a gradient by its size: where it is rounding error only, so would be the parameter's step
OPTIONS = [*NO_DROPOUT, "--lr", 0.003, "--adam-eps", 1e-6]
# and a ReLU at its kink passes all of a gradient or none, by a rounding error
OPTIONS += ["--activation-fn", "gelu"]
OPTIONS += ["--no-epoch-checkpoints", "--validate-interval", 4, "--save-interval", 4]


def sample_as_ranks(ranks: int) -> None:
    """For the single process: its micro-batches draw their subnets as the ranks would theirs."""
    from mos_fairseq.tasks import subnet_sampling
    from mos_fairseq.tasks import supernet_task as tasks

    calls = itertools.count()
    step, number = tasks.SupernetTask.train_step, [0]

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        batch = next(calls) % 6  # of the epoch
        number[0] = batch % ranks
        self._drawn, self.cfg.subnets_per_rank = None, True  # what one process refuses when an epoch begins
        found = step(self, sample, model, criterion, optimizer, update_num, ignore_grad)
        self.cfg.subnets_per_rank = False
        return found

    tasks.SupernetTask.train_step = train_step
    subnet_sampling.data_parallel_rank = lambda: number[0]
    subnet_sampling.data_parallel_size = lambda: ranks


class Trainings:
    """Runs by their options; each is made once."""

    def __init__(self, folder: Path, task: str, quick: bool) -> None:
        self.folder, self.task, self.updates = folder, task, QUICK if quick else UPDATES
        self.data, self.space = processes.prepare(folder, task=task)
        self.done: dict[tuple, Path] = {}

    def run(
        self, ranks: int, *options: object, before=None, stop_at: int | None = None, data: str | None = None
    ) -> Path:
        """Save directory of a training in ``ranks`` processes; with ``stop_at`` it is done in two parts."""
        key = (ranks, *options, before is not None, stop_at, data)
        if key not in self.done:
            save_dir = self.folder / f"run{len(self.done)}"
            for updates in (stop_at, self.updates) if stop_at else (self.updates,):
                more = [*OPTIONS, *options, *processes.together(ranks), "--max-update", updates]
                arguments = processes.training(data or self.data, self.space, save_dir, *more, task=self.task)
                log = self.folder / f"{save_dir.name}.log"
                processes.run("train", *arguments, log=log, ranks=ranks, before=before)
            self.done[key] = save_dir
        return self.done[key]

    def shards(self, ranks: int) -> str:
        """As many folders of data, for --shard-data; the last has half as many sentences."""
        folders = []
        for rank in range(ranks):
            made = self.folder / f"shard{rank}of{ranks}"
            sentences = 30 if rank == ranks - 1 else 60  # an epoch has 3 mini-batches
            folders.append(str(processes.prepare(made, sentences, self.task, like=self.data)[0]))
        return os.pathsep.join(folders)


def difference(first: Path, second: Path) -> float:
    """Largest absolute difference of a parameter."""
    import torch
    from fairseq import checkpoint_utils

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # further trainings are forks of this process, which would wait for its threads
    files = (str(path / "checkpoint_last.pt") for path in (first, second))
    a, b = (checkpoint_utils.load_checkpoint_to_cpu(file)["model"] for file in files)
    assert a.keys() == b.keys()
    found = max(float((a[key].double() - b[key].double()).abs().max()) for key in a)
    torch.set_num_threads(threads)  # theirs again
    return found


def valid_losses(save_dir: Path) -> list[str]:
    """Return the log's figures of the last validation."""
    log = save_dir.with_name(f"{save_dir.name}.log.0").read_text()
    row = json.loads(log.rsplit("| valid | ", 1)[1].splitlines()[0])
    return [row[f"valid_{kind}_{name}"] for kind in ("loss", "nll_loss") for name in ("largest", "smallest")]


def rows(trainings: Trainings, quick: bool):
    """(processes, backend, sampling, routing, difference, do the validation losses agree) one after another."""
    backends = ("pytorch_ddp", "legacy_ddp")
    everything = trainings.task == "translation_mos" or not quick
    for ranks in (2,) if quick else (2, 4):
        for sampling in ("sandwich",) * everything if quick else ("sandwich", "random"):
            for routing in ("neuron",) if quick else ("none", "layer", "neuron"):
                options = ["--subnet-sampling", sampling, "--mos-routing", routing]
                alone = trainings.run(1, *options, "--update-freq", ranks)
                for backend in backends[:1] if quick else backends:
                    found = trainings.run(ranks, *options, "--ddp-backend", backend)
                    yield ranks, backend, sampling, routing, difference(alone, found), _agree(alone, found)
        options = ["--subnet-sampling", "sandwich", "--cost-strata", 4]
        alone = trainings.run(1, *options, "--update-freq", ranks, before=partial(sample_as_ranks, ranks))
        options += ["--subnets-per-rank"]
        whole = trainings.run(ranks, *options, "--ddp-backend", backends[1])
        yield ranks, backends[1], "sandwich, per rank", "neuron", difference(alone, whole), _agree(alone, whole)
        parts = trainings.run(ranks, *options, "--ddp-backend", backends[1], stop_at=trainings.updates // 2 + 1)
        yield ranks, backends[1], "the same, resumed", "neuron", difference(whole, parts), _agree(whole, parts)
        if everything:
            # the round of the update in the middle ends early, with the epoch and with the run that stops there
            length, epochs = (2, 1) if quick else (5, 2)
            options = ["--local-updates", length, "--local-moments", "keep", "--subnets-per-rank"]
            options += ["--validate-interval", epochs, "--save-interval", epochs]
            data = trainings.shards(ranks)
            whole = trainings.run(ranks, *options, "--shard-data", data=data)
            parts = trainings.run(ranks, *options, "--shard-data", stop_at=trainings.updates // 2, data=data)
            yield ranks, backends[0], "local, resumed", "neuron", difference(whole, parts), _agree(whole, parts)


def _agree(first: Path, second: Path) -> bool:
    pairs = zip(valid_losses(first), valid_losses(second), strict=True)
    return all(abs(float(a) - float(b)) < 0.0011 for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two processes, neuron-wise routing")
    parser.add_argument("--json", action="store_true", help="a row a line")
    parser.add_argument("--task", choices=tuple(processes.SPACES), default="translation_mos")
    args = parser.parse_args()
    processes.import_everything()
    worst, agree = 0.0, True
    if not args.json:
        print(f"{QUICK if args.quick else UPDATES} updates, against one process with --update-freq", flush=True)
        print("| processes | backend | sampling | routing | max parameter difference | validation losses equal |")
        print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Trainings(Path(folder), args.task, args.quick), args.quick):
            worst, agree = max(worst, row[4]), agree and row[5]
            text = f"| {row[0]} | {row[1]} | {row[2]} | {row[3]} | {row[4]:.1e} | {'yes' if row[5] else 'NO'} |"
            print(json.dumps(row) if args.json else text, flush=True)
    sys.exit(int(not (worst < 1e-5 and agree)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
