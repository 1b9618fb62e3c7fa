"""Training runs through fairseq-train: their logs, their files and how they resume."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils

import mos_fairseq  # noqa: F401  makes checkpoints readable
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.tasks.stratified_draws import StratifiedDraws
from tests.processes import until
from tests.seeds import moved
from tests.spaces import EVEN_SPACE

from .conftest import MIDDLE, generation, training


def updates_of(checkpoint) -> int:
    return checkpoint_utils.load_checkpoint_to_cpu(str(checkpoint))["optimizer_history"][-1]["num_updates"]


def best_updates(done, metric: str, choose=min) -> set[int]:
    """Return the update of the best metric; the log rounds it, so several updates may look equal."""
    values = {int(row["valid_num_updates"]): float(row[f"valid_{metric}"]) for row in done.rows("valid")}
    return {updates for updates, value in values.items() if value == choose(values.values())}


def test_what_is_logged(supernet):
    _, done = supernet
    row = done.rows("train_inner")[-1]
    keys = {f"{kind}{of}" for kind in ("loss", "nll_loss", "ppl") for of in ("", "_largest", "_random", "_smallest")}
    assert keys <= row.keys() and not any("@" in key for key in row)
    first = done.rows("train_inner")[0]
    for name in ("largest", "random", "smallest"):
        assert float(row[f"loss_{name}"]) < float(first[f"loss_{name}"])
    row = done.rows("valid")[-1]
    names = ("", "_smallest", "_largest", "_random7", "_middle")
    assert {f"valid_{kind}{of}" for kind in ("loss", "nll_loss", "ppl", "bleu") for of in names} <= row.keys()
    for kind in ("loss", "bleu"):
        mean = sum(float(row[f"valid_{kind}{of}"]) for of in names[1:]) / 4
        assert float(row[f"valid_{kind}"]) == pytest.approx(mean, abs=0.02)  # BLEU has two decimals


def test_what_was_sampled_is_logged(supernet):
    _, done = supernet
    space = SearchSpace.from_dict(EVEN_SPACE)
    lines = re.findall(r"update (\d+) trains largest; random: (.*); smallest", done.out)
    assert [int(number) for number, _ in lines] == list(range(1, 61))
    for number, text in lines:
        assert text == space.sample_subnet("train", moved(1), int(number) - 1, 0).summary()


def test_best_checkpoint_by_a_subnets_bleu(supernet):
    save_dir, done = supernet
    assert updates_of(save_dir / "checkpoint_best.pt") in best_updates(done, "bleu_smallest", max)


def test_best_checkpoint_by_a_subnets_loss_with_a_stock_criterion(commands, joined, files, tmp_path):
    """The last epoch, with an enormous rate, spoils everything: the best checkpoint is an earlier one."""
    options = ["--subnet-sampling", "largest", "--max-update", 18, "--lr", "0.003,0.01,30"]
    options += ["--best-checkpoint-metric", "loss_smallest", "--label-smoothing", 0.1]
    how = {"space": files / "space.yaml", "criterion": "label_smoothed_cross_entropy"}
    done = commands.fork("train", *training(joined, tmp_path, *options, **how))
    rows = done.rows("valid")
    assert [int(row["valid_num_updates"]) for row in rows] == [6, 12, 18] and "valid_nll_loss_smallest" in rows[0]
    best = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "checkpoint_best.pt"))
    updates = best["optimizer_history"][-1]["num_updates"]
    assert updates in best_updates(done, "loss_smallest") and updates < 18
    # and it is the smallest's loss that was looked at: nothing has trained it
    (row,) = [row for row in rows if int(row["valid_num_updates"]) == updates]
    losses = [float(row[f"valid_loss_{name}"]) for name in ("smallest", "largest")]
    assert best["extra_state"]["best"] == pytest.approx(losses[0], abs=1e-3) and abs(losses[0] - losses[1]) > 0.02
    assert set(re.findall(r"update \d+ trains (\S+)", done.out)) == {"largest"}


@pytest.mark.slow
def test_stock_cross_entropy_with_many_options(commands, separate, files, tmp_path):
    """Separate dictionaries and embeddings, gradient accumulation, mixed precision, data workers, other routing."""
    plain = ["--update-freq", 2, "--amp", "--num-workers", 2, "--max-update", 5]
    routing = ["--mos-routing", "layer", "--mos-linears", "all", "--num-experts", 3, "--num-random-subnets", 2]
    how = {"space": files / "space.yaml", "criterion": "cross_entropy", "share": False}
    done = commands.fork("train", *training(separate, tmp_path, *plain, *routing, **how))
    rows = done.rows("train_inner")
    assert [int(row["num_updates"]) for row in rows] == [1, 2, 3, 4, 5]
    losses = [float(row["loss_smallest"]) for row in rows]
    assert min(losses[1:]) < losses[0]
    assert "valid_loss_largest" in done.rows("valid")[-1]
    lines = re.findall(r"update \d+ trains (.*)", done.out)
    assert len(lines) == 5 and all(line.count("random: ") == 2 for line in lines)
    generated = commands.fork("generate", *generation(separate, tmp_path / "checkpoint_last.pt", "--batch-size", 5))
    assert len(generated.hypotheses()) == 12


@pytest.mark.slow
def test_overflow_with_amp_is_named_and_left_out(commands, joined, files, tmp_path):
    """A step that makes everything overflow: from then on fairseq skips each batch, and no weight becomes NaN."""
    options = ["--amp", "--lr", 1e30, "--max-epoch", 1, "--max-update", 9, "--disable-validation"]
    done = commands.fork("train", *training(joined, tmp_path, *options, space=files / "space.yaml"))
    assert "AMP: skipping this batch" in done.out
    for name in ("largest", "random", "smallest"):
        assert re.search(rf"update 2: the loss of subnet {name} is (nan|inf): enc ", done.out + done.err)
    assert updates_of(tmp_path / "checkpoint_last.pt") == 1
    weights = torch.load(tmp_path / "checkpoint_last.pt")["model"].values()
    assert all(tensor.isfinite().all() for tensor in weights)


def test_finetuning(commands, joined, supernet, files, tmp_path):
    start = ["--finetune-from-model", supernet[0] / "checkpoint_last.pt", "--max-update", 1]
    done = commands.fork("train", *training(joined, tmp_path, *start, space=files / "space.yaml"))
    first, last = done.rows("train_inner")[0], supernet[1].rows("train_inner")[-1]
    assert int(first["num_updates"]) == 1  # the optimizer starts anew
    loss, trained, fresh = (float(row["loss"]) for row in (first, last, supernet[1].rows("train_inner")[0]))
    assert loss < (trained + fresh) / 2  # batches differ, by less


def test_the_largest_and_random_ones_of_each_cost_in_turn(commands, joined, files, tmp_path):
    options = ["--subnet-sampling", "alternate", "--cost-strata", 3, "--max-update", 7, "--disable-validation"]
    done = commands.fork("train", *training(joined, tmp_path, *options, space=files / "space.yaml"))
    lines = re.findall(r"update (\d+) trains (\w+)(?:: (.*))?", done.out)
    assert [(int(n), name) for n, name, _ in lines] == [(u, ("random", "largest")[u % 2]) for u in range(1, 8)]
    draws = StratifiedDraws(SearchSpace.from_dict(EVEN_SPACE), 3)
    assert [text for _, _, text in lines[1::2]] == [draws.draw(i, "train", moved(1)).summary() for i in range(3)]
    rows = done.rows("train_inner")
    assert [float(row["loss"]) for row in rows[::2]] == [float(row["loss_largest"]) for row in rows[::2]]
    assert [float(row["loss"]) for row in rows[1::2]] == [float(row["loss_random"]) for row in rows[1::2]]
    # a log over several updates has both
    options += ["--log-interval", 3, "--no-save"]
    done = commands.fork("train", *training(joined, tmp_path / "other", *options, space=files / "space.yaml"))
    assert re.findall(r"update (\d+) trains", done.out) == ["1", "2", "4", "5", "7"]
    for row in done.rows("train_inner"):
        assert 0 < float(row["loss_largest"]) < 20 and 0 < float(row["loss_random"]) < 20


def test_a_subnet_that_stops_to_train_leaves_the_log(commands, joined, files, tmp_path):
    options = [
        "--subnet-sampling",
        "decay",
        "--largest-until",
        2,
        "--max-update",
        6,
        "--disable-validation",
        "--no-save",
    ]
    options += ["--report-accuracy"]
    done = commands.fork("train", *training(joined, tmp_path, *options, space=files / "space.yaml"))
    rows = done.rows("train_inner")
    assert {"loss_largest", "ppl_largest", "accuracy_largest"} <= rows[0].keys()
    assert "loss_random" in rows[-1] and not [key for key in rows[-1] if key.endswith("_largest")]
    assert not [row for row in rows if None in row.values()]


def test_sentences_of_similar_lengths_in_a_batch(commands, joined, files, tmp_path):
    options = ["--num-batch-buckets", 2, "--max-update", 2, "--no-save"]
    done = commands.fork("train", *training(joined, tmp_path, *options, space=files / "space.yaml"))
    assert "bucketing source lengths" in done.out and 0 < float(done.rows("valid")[-1]["valid_loss"]) < 20


def test_two_parts_of_a_training_set(commands, joined, files, tmp_path):
    shutil.copytree(joined, tmp_path / "data")
    for file in (tmp_path / "data").glob("train.*"):
        shutil.copy(file, file.with_name(file.name.replace("train.", "train1.")))
    options = ["--batch-size", 10, "--max-epoch", 1, "--max-update", 99, "--no-save", "--disable-validation"]
    found = []
    for data, more in (joined, []), (tmp_path / "data", []), (tmp_path / "data", ["--upsample-primary", 4]):
        arguments = training(data, tmp_path / "save", *options, *more, space=files / "space.yaml")
        found.append(sum(float(row["bsz"]) for row in commands.fork("train", *arguments).rows("train_inner")))
    assert found == [found[0], 2 * found[0], 5 * found[0]]


def test_a_missing_file_to_restore(commands, joined, files, tmp_path):
    options = ["--restore-file", tmp_path / "none.pt", "--max-update", 1, "--no-save", "--disable-validation"]
    done = commands.fork("train", *training(joined, tmp_path, *options, space=files / "space.yaml"))
    assert f"restore_file is {tmp_path / 'none.pt'}: no such file; the training begins anew" in done.out


@pytest.mark.parametrize("arch", ["transformer_mos", "transformer_subnet"])
def test_a_training_that_diverges(commands, joined, files, tmp_path, arch):
    """fairseq says so, after its search for the first value that is not finite."""
    how = {"space": files / "space.yaml"}
    if arch == "transformer_subnet":
        how = {"arch": arch, "task": "translation", "criterion": "label_smoothed_cross_entropy"}
    options = ["--lr", 1e30, "--max-update", 9, "--no-save", "--disable-validation"]
    options += ["--subnet", files / "twin.yaml"] if arch == "transformer_subnet" else []
    (files / "twin.yaml").write_text((files / "middle.yaml").read_text() + "qkv_dim: 16\n")
    done = commands.fork("train", *training(joined, tmp_path, *options, **how), check=False)
    assert done.status != 0 and "FloatingPointError: gradients are Nan/Inf" in done.err
    assert "StopIteration" not in done.err


def test_fixed_subnet(commands, joined, files, tmp_path):
    options = ["--subnet-sampling", "fixed", "--subnet", files / "middle.yaml", "--max-update", 2, "--no-save"]
    done = commands.fork("train", *training(joined, tmp_path, *options, space=files / "space.yaml"))
    assert "loss_fixed" in done.rows("train_inner")[-1] and "loss_random" not in done.rows("train_inner")[-1]
    assert re.findall(r"update \d+ trains fixed: enc 2x24 ffn 32,24", done.out)


@pytest.mark.slow
def test_static_twin_from_scratch(commands, joined, files, tmp_path):
    """transformer_subnet with the stock task: its architecture travels in the checkpoint too."""
    subnet = tmp_path / "subnet.yaml"
    subnet.write_text((files / "middle.yaml").read_text() + "qkv_dim: 16\n")
    how = {"arch": "transformer_subnet", "task": "translation"}
    done = commands.fork("train", *training(joined, tmp_path / "a", "--subnet", subnet, **how))
    assert len(done.rows("train_inner")) == 4
    subnet.unlink()
    checkpoint = tmp_path / "a" / "checkpoint_best.pt"
    options = ["--batch-size", 5, "--required-batch-size-multiple", 1]  # the stock task leaves sentences out otherwise
    generated = commands.fork("generate", *generation(joined, checkpoint, *options, task="translation"))
    assert len(generated.hypotheses()) == 12
    state = checkpoint_utils.load_checkpoint_to_cpu(str(checkpoint))
    assert state["model"]["decoder.layers.1.fc1.weight"].shape == (MIDDLE["decoder_ffn_embed_dim"][1], 16)
    # and goes on as another run
    (tmp_path / "again.yaml").write_text((files / "middle.yaml").read_text() + "qkv_dim: 16\n")
    options = ["--subnet", tmp_path / "again.yaml", "--finetune-from-model", checkpoint, "--max-update", 1]
    assert len(commands.fork("train", *training(joined, tmp_path / "b", *options, **how)).rows("train_inner")) == 1


# --- resuming ---


def assert_equal(mine, theirs, where: str = "") -> None:
    assert type(mine) is type(theirs), where
    if isinstance(mine, torch.Tensor):
        assert torch.equal(mine, theirs), where
    elif isinstance(mine, dict):
        assert mine.keys() == theirs.keys(), where
        for key in mine:
            assert_equal(mine[key], theirs[key], f"{where}/{key}")
    elif isinstance(mine, (list, tuple)):
        assert len(mine) == len(theirs), where
        for index, pair in enumerate(zip(mine, theirs, strict=True)):
            assert_equal(*pair, f"{where}/{index}")
    else:
        assert mine == theirs, where


def state_of(folder: Path) -> dict:
    return checkpoint_utils.load_checkpoint_to_cpu(str(folder / "checkpoint_last.pt"))


def resumed_and_uninterrupted(
    commands, run, folder: Path, updates: int, name: str = "checkpoint_1_4.pt", after: int = 4
) -> list[dict]:
    """Checkpoints of ``run("whole", updates)`` and of ``run("parts", updates)``, which goes on where a run was killed
    that had written ``name``, after so many updates; their parameters and the optimizer's state are found equal."""
    commands.fork("train", *run("whole", updates))
    running = commands.start("train", *run("parts", 100_000))
    middle = folder / "parts" / name
    until(middle.exists)
    assert running.kill().status == -9
    for file in middle.parent.iterdir():
        if file != middle:
            file.unlink()
    middle.rename(middle.with_name("checkpoint_last.pt"))
    done = commands.fork("train", *run("parts", updates))
    assert [int(row["num_updates"]) for row in done.rows("train_inner")] == list(range(after + 1, updates + 1))
    paths = [str(folder / name / "checkpoint_last.pt") for name in ("whole", "parts")]
    whole, parts = map(checkpoint_utils.load_checkpoint_to_cpu, paths)
    for part in ("model", "last_optimizer_state"):
        assert_equal(whole[part], parts[part], part)
    return [whole, parts]


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_one(commands, joined, files, tmp_path):
    """Killed after a checkpoint in mid-epoch (an epoch has 6 updates), with dropout everywhere."""
    rates = ["--dropout", 0.3, "--attention-dropout", 0.1, "--activation-dropout", 0.1, "--router-dropout", 0.2]
    often = ["--save-interval-updates", 4, "--lr-scheduler", "inverse_sqrt", "--warmup-updates", 5]

    def run(folder, updates):
        options = [*rates, *often, "--max-update", updates]
        return training(joined, tmp_path / folder, *options, space=files / "space.yaml")

    whole, parts = resumed_and_uninterrupted(commands, run, tmp_path, 12)
    assert whole["optimizer_history"][-1]["num_updates"] == parts["optimizer_history"][-1]["num_updates"] == 12


@pytest.mark.slow
def test_scaled_adam_and_eden_resume_in_mid_period(commands, joined, files, tmp_path):
    """An epoch has 6 updates, and the size of a tensor is renewed after 4 of its own: those of the second decoder layer
    lag behind, since some updates do not have it."""
    scaled = ["--optimizer", "scaled_adam", "--lr-scheduler", "eden", "--lr", 0.03, "--clip-norm", 0.0]
    scaled += ["--eden-epochs", 1, "--warmup-updates", 3, "--subnet-sampling", "random", "--save-interval-updates", 5]

    def run(folder, updates):
        return training(joined, tmp_path / folder, *scaled, "--max-update", updates, space=files / "space.yaml")

    whole, _ = resumed_and_uninterrupted(commands, run, tmp_path, 15, "checkpoint_1_5.pt", 5)
    steps = {moments["step"] for moments in whole["last_optimizer_state"]["state"].values()}
    assert max(steps) == 15 and min(steps) < 15
    assert len(whole["last_optimizer_state"]["param_groups"][0]["norms"]) == 14


def test_an_average_goes_on_in_its_rhythm(commands, joined, files, tmp_path):
    """Resumed after an odd number of updates; and begun with weights that come without an average."""
    options = ["--store-ema", "--ema-decay", 0.5, "--ema-update-freq", 2, "--disable-validation"]

    def run(folder, updates, *more):
        at = [*options, "--max-update", updates, *more]
        return commands.fork("train", *training(joined, tmp_path / folder, *at, space=files / "space.yaml"))

    for folder, updates in (("whole", 6), ("parts", 3), ("parts", 6)):
        run(folder, updates)
    whole, parts = (state_of(tmp_path / folder)["extra_state"]["ema"] for folder in ("whole", "parts"))
    assert_equal(whole, parts)
    start = tmp_path / "whole" / "checkpoint_last.pt"
    state = state_of(tmp_path / "whole")
    del state["extra_state"]["ema"]
    torch.save(state, start)
    run("started", 1, "--finetune-from-model", start, "--lr", 0)
    assert_equal(state_of(tmp_path / "started")["extra_state"]["ema"], state["model"])


def test_another_optimizer_than_the_checkpoints(commands, joined, files, tmp_path):
    arguments = training(joined, tmp_path, "--disable-validation", space=files / "space.yaml")
    commands.fork("train", *arguments, "--max-update", 1)
    other = ["--optimizer", "scaled_adam", "--clip-norm", 0.0]
    message = commands.fork("train", *arguments, *other, check=False).error()
    assert message.startswith(f"checkpoint {tmp_path / 'checkpoint_last.pt'}: Optimizer does not match")


def test_ema_either_adam_and_another_sampling(commands, joined, files, tmp_path):
    """--store-ema, and a run that resumes with the other Adam; the EMA is a separate model that translates. Resumed
    with another sampling, it says so once: the next checkpoint has the new one."""
    ema = ["--store-ema", "--ema-fp32", "--ema-decay", 0.9, "--disable-validation"]
    save_dir = tmp_path / "save"
    for optimizer, updates, sampling in (("adam", 3, "sandwich"), ("adam_fused", 5, "random"), ("adam", 7, "random")):
        options = ["--optimizer", optimizer, "--max-update", updates, "--subnet-sampling", sampling, *ema]
        done = commands.fork("train", *training(joined, save_dir, *options, space=files / "space.yaml"))
        lines = [line for line in (done.out + done.err).splitlines() if "subnet_sampling is random from here" in line]
        assert len(lines) == (updates == 5) and all("WARNING" in line and "was sandwich" in line for line in lines)
        assert updates == 3 or f"(epoch 1 @ {updates - 2} updates)" in done.out
    state = checkpoint_utils.load_checkpoint_to_cpu(str(save_dir / "checkpoint_last.pt"))
    assert {moments["step"] for moments in state["last_optimizer_state"]["state"].values()} <= set(range(1, 8))
    name = "encoder.embed_tokens.weight"
    assert not torch.equal(state["extra_state"]["ema"][name], state["model"][name])
    averaged = checkpoint_utils.load_ema_from_checkpoint(str(save_dir / "checkpoint_last.pt"))
    torch.save(averaged, tmp_path / "ema.pt")
    assert len(commands.fork("generate", *generation(joined, tmp_path / "ema.pt")).hypotheses()) == 12
