"""Supernets of classifiers (sentence_prediction_mos) through fairseq's commands, searches and exports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from omegaconf import OmegaConf

from mos_fairseq.cli import export, search
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation import EvaluationOptions, SubnetEvaluator
from mos_fairseq.search_space import Subnet
from tests.seeds import moved

from .conftest import USER_DIR
from .test_masked_language_model import HEAD, LOG, MIDDLE, PLUGIN, spaces, text
from .test_train import best_updates, resumed_and_uninterrupted, updates_of

__all__ = ["spaces", "text"]  # fixtures
TASK = ["--num-classes", 2, "--init-token", 0, "--separator-token", 2, "--max-positions", 16]
NAMES = ("smallest", "largest", "middle")


def training(labelled: Path, save_dir: Path, space: Path | None, *options: object) -> list[object]:
    """Arguments of a small training; without a ``space`` by fairseq's own task. Later options win."""
    ours = ["--task", "sentence_prediction_mos", "--arch", "roberta_mos", "--search-space", space]
    task = ours if space else ["--task", "sentence_prediction"]
    # Adam divides a gradient by its size: where it is rounding error only, so would be the parameter's step
    optimizer = ["--optimizer", "adam", "--adam-eps", 1e-6, "--lr", 0.005, "--batch-size", 8]
    optimizer += ["--dropout", 0.0, "--attention-dropout", 0.0]
    common = [*LOG, "--no-epoch-checkpoints", "--seed", moved(1), "--criterion", "sentence_prediction"]
    return [labelled, *PLUGIN, *task, *TASK, *optimizer, *common, "--save-dir", save_dir, *options]


@pytest.fixture(scope="module")
def trained(commands, text, spaces, tmp_path_factory):
    """(save dir, log) of a supernet that has learnt, by distillation in place."""
    save_dir = tmp_path_factory.mktemp("classifiers") / "checkpoints"
    subnets = ["--subnet-sampling", "sandwich", "--valid-subnets", f"smallest,largest,{spaces / 'middle.yaml'}"]
    best = ["--best-checkpoint-metric", "accuracy_smallest", "--maximize-best-checkpoint-metric"]
    more = ["--criterion", "distillation_mos", "--max-epoch", 8]
    return save_dir, commands.fork(
        "train", *training(text / "labelled", save_dir, spaces / "space.yaml", *subnets, *best, *more)
    )


# --- training ---


def test_all_subnets_learn(trained):
    save_dir, done = trained
    last = done.rows("valid")[-1]
    for name in NAMES:
        assert float(last[f"valid_accuracy_{name}"]) > 80 and f"valid_ppl_{name}" not in last
    mean = sum(float(last[f"valid_accuracy_{name}"]) for name in NAMES) / len(NAMES)
    assert float(last["valid_accuracy"]) == pytest.approx(mean, abs=0.01)
    assert float(done.rows("train_inner")[-1]["distillation_loss_smallest"]) >= 0
    assert updates_of(save_dir / "checkpoint_best.pt") in best_updates(done, "accuracy_smallest", max)


@pytest.mark.parametrize("criterion", ["sentence_prediction", "label_smoothed_cross_entropy_mos", "distillation_mos"])
def test_the_largest_subnet_trains_as_by_the_stock_task(commands, text, spaces, tmp_path, criterion):
    """With fairseq's criterion, losses, accuracies and weights equal those of its own task; the package's criterion
    rounds gradients in another way, and in place the teacher is the first to learn."""
    few = ["--max-epoch", 1, "--mos-routing", "none", "--clip-norm", 1.0, "--valid-subset", "test"]
    few += ["--required-batch-size-multiple", 1]  # otherwise, fairseq leaves out examples
    model = ["--arch", "roberta_mos", "--search-space", spaces / "space.yaml"]
    stock = commands.fork("train", *training(text / "labelled", tmp_path / "stock", None, *model, *few))
    sampling = "sandwich" if criterion == "distillation_mos" else "largest"
    how = ["--criterion", criterion, "--subnet-sampling", sampling, "--valid-subnets", "largest"]
    done = commands.fork("train", *training(text / "labelled", tmp_path / "ours", spaces / "space.yaml", *few, *how))
    steps = 1 if sampling == "sandwich" else None  # then other subnets have moved the weights
    rows, expected = done.rows("train_inner")[:steps], stock.rows("train_inner")[:steps]
    assert [float(row["loss_largest"]) for row in rows] == pytest.approx(
        [float(row["loss"]) for row in expected], abs=0.002
    )
    if criterion != "sentence_prediction":
        return
    mine, theirs = (
        checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / name / "checkpoint_last.pt"))["model"]
        for name in ("ours", "stock")
    )
    assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())
    row, expected = done.rows("test")[-1], stock.rows("test")[-1]
    for name, digits in (("loss", 0.001), ("accuracy", 0.051)):  # fairseq's has one digit
        assert float(row[f"test_{name}_largest"]) == pytest.approx(float(expected[f"test_{name}"]), abs=digits)


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_one(commands, text, spaces, tmp_path):
    def run(name: str, updates: int) -> list[object]:
        options = ["--max-update", updates, "--save-interval-updates", 4, "--disable-validation", "--dropout", 0.1]
        return training(text / "labelled", tmp_path / name, spaces / "space.yaml", *options)

    resumed_and_uninterrupted(commands, run, tmp_path, 15)


# --- validation, search and export ---


def test_the_evaluator_judges_as_validation(text, trained):
    last = trained[1].rows("valid")[-1]
    path, data = str(trained[0] / "checkpoint_last.pt"), str(text / "labelled")
    for objective, digits in (("loss", 0.001), ("accuracy", 0.001)):
        evaluator = SubnetEvaluator(path, data, EvaluationOptions(objective, max_tokens=70))
        space = evaluator.space
        found = list(evaluator.evaluate_all([space.smallest(), space.largest(), Subnet.from_dict(MIDDLE)]))
        assert found == pytest.approx([float(last[f"valid_{objective}_{name}"]) for name in NAMES], abs=digits)
        assert evaluator.num_predicted == 23


def test_fairseq_validates_a_subnet(commands, text, spaces, trained):
    words = ["--path", trained[0] / "checkpoint_last.pt", "--subnet", spaces / "middle.yaml", "--batch-size", 7]
    task = ["--task", "sentence_prediction_mos", *PLUGIN]
    row = commands.fork("validate", text / "labelled", *task, *words, *LOG).rows("valid")[-1]
    expected = trained[1].rows("valid")[-1]
    assert float(row["valid_accuracy_middle"]) == pytest.approx(float(expected["valid_accuracy_middle"]), abs=0.001)


def test_search_by_accuracy(text, trained, tmp_path, capsys):
    words = ["--path", str(trained[0] / "checkpoint_last.pt"), "--objective", "accuracy", "--constraint", "params<=80%"]
    more = [
        "--algorithm",
        "random",
        "--num-subnets",
        "12",
        "--output",
        str(tmp_path / "found"),
        "--valid-subset",
        "test",
    ]
    search.main([str(text / "labelled"), *words, *more, "--max-tokens", "100"])
    assert "accuracy" in capsys.readouterr().out
    found = json.loads((tmp_path / "found" / "search.json").read_text())
    options = EvaluationOptions("accuracy", valid_subset="test")
    evaluator = SubnetEvaluator(str(trained[0] / "checkpoint_last.pt"), str(text / "labelled"), options)
    for row in (found["best"], *found["front"], *found["compared"].values()):
        assert evaluator.evaluate(Subnet.from_dict(row["architecture"])) == pytest.approx(row["accuracy"], abs=1e-4)
    kept = [row["accuracy"] for row in found["front"] if row["params"] <= 0.8 * found["compared"]["largest"]["params"]]
    assert found["best"]["accuracy"] == max(kept)


def test_an_exported_classifier_needs_no_training(commands, text, spaces, trained, tmp_path):
    """fairseq's own task validates it, and Hugging Face's folder has its labels."""
    path = ["--path", str(trained[0] / "checkpoint_last.pt"), "--subnet", str(spaces / "middle.yaml")]
    export.main([*path, "--output", str(tmp_path / "twin.pt")])
    task = ["--task", "sentence_prediction", "--criterion", "sentence_prediction", *PLUGIN, "--batch-size", 5]
    task += ["--path", tmp_path / "twin.pt"]
    row = commands.fork("validate", text / "labelled", *task, *LOG).rows("valid")[-1]
    expected = trained[1].rows("valid")[-1]
    assert float(row["valid_accuracy"]) == pytest.approx(float(expected["valid_accuracy_middle"]), abs=0.06)
    (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "twin.pt")])
    assert (cfg.task._name, cfg.criterion._name) == ("sentence_prediction", "sentence_prediction")
    assert HEAD in model.classification_heads and len(task.label_dictionary) == 4 + 2 + 1  # and <mask>
    export.main([*path, "--format", "huggingface", "--allow-padding", "--output", str(tmp_path / "folder")])
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    labels = task.label_dictionary.symbols[4:6]
    assert config["id2label"] == {str(i): label for i, label in enumerate(labels)}
    assert config["architectures"] == ["RobertaForSequenceClassification"]


def test_hydra(commands, text, spaces, trained, tmp_path):
    """The package's configuration goes on with a supernet, also by distillation."""
    config = ["--config-dir", Path(USER_DIR) / "config", "--config-name", "sentence_prediction_mos"]
    task = [f"task.data={text / 'labelled'}", f"task.search_space={spaces / 'space.yaml'}", "task.num_classes=2"]
    few = ["optimization.max_update=2", "common.log_interval=1", "task.max_positions=16", "checkpoint.save_dir=one"]
    start = [f"checkpoint.finetune_from_model={trained[0] / 'checkpoint_last.pt'}"]
    for more, logged in ((start, "loss_random="), (["distillation=kl"], "distillation_loss_smallest=")):
        done = commands.fork("hydra-train", *config, *task, *few, *more, "checkpoint.save_dir=one", cwd=tmp_path)
        assert done.out.count("| train_inner |") == 2 and logged in done.out
        found = {path.name for path in (tmp_path / "one").iterdir()}
        assert found == {"checkpoint_best.pt", "checkpoint_last.pt"}
        shutil.rmtree(tmp_path / "one")


# --- a trained teacher ---


def test_padding_does_not_count_in_hidden_states(text, trained):
    """More columns of padding change no part of a student's loss."""
    cfg = {"criterion": {"_name": "distillation_mos", "hidden_weight": 0.5}}
    path = str(trained[0] / "checkpoint_last.pt")
    (model,), saved, task = checkpoint_utils.load_model_ensemble_and_task([path])
    criterion = task.build_criterion(OmegaConf.create(OmegaConf.to_container(saved.criterion) | cfg["criterion"]))
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    sample = dataset.collater([dataset[index] for index in range(5)])
    tokens = sample["net_input"]["src_tokens"]
    wider = torch.nn.functional.pad(tokens, (0, 16 - tokens.size(1)), value=task.source_dictionary.pad())
    found = []
    for given in (tokens, wider):
        criterion.teach(1, 0)
        torch.manual_seed(moved(1))  # of the routers' dropout
        for subnet in (model.search_space.largest(), model.search_space.smallest()):
            model.set_active_subnet(subnet)
            with torch.no_grad():
                _, _, log = criterion(model.train(), sample | {"net_input": {"src_tokens": given}})
        found.append([float(log[name]) for name in ("hidden_loss", "distillation_loss", "nll_loss")])
    assert wider.shape != tokens.shape and found[0] == pytest.approx(found[1], rel=1e-4) and found[0][0] > 0


def test_a_classifier_teaches(commands, text, spaces, trained, tmp_path):
    teacher = ["--criterion", "distillation_mos", "--teacher", trained[0] / "checkpoint_last.pt"]
    options = [*teacher, "--distillation-weight", 0.5, "--max-update", 6]
    done = commands.fork("train", *training(text / "labelled", tmp_path, spaces / "space.yaml", *options))
    rows = done.rows("train_inner")
    assert len(rows) == 6 and all(float(row["distillation_loss_random"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("labels", "its labels (label/dict.txt) are not the training's"),
        ("words", "it is no classifier, its task is masked_lm_mos"),
        ("head", f"it has no classification head {HEAD}, only other"),
    ],
)
def test_teachers_that_do_not_fit(commands, text, spaces, tmp_path, change, words):
    data = text / "labelled"
    few = ["--max-update", 1, "--disable-validation"]
    if change == "words":
        from .test_masked_language_model import training as masked

        commands.fork("train", *masked(text / "bin", tmp_path / "teacher", *few, space=spaces / "space.yaml"))
    else:
        head = ["--classification-head-name", "other"] if change == "head" else []
        commands.fork("train", *training(data, tmp_path / "teacher", spaces / "space.yaml", *few, *head))
    if change == "labels":
        data = relabelled(data, tmp_path / "data", lambda lines: lines[::-1])
    options = ["--criterion", "distillation_mos", "--teacher", tmp_path / "teacher" / "checkpoint_last.pt"]
    done = commands.fork("train", *training(data, tmp_path / "none", spaces / "space.yaml", *options), check=False)
    assert done.error().endswith(words)


# --- mistakes ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num-classes", 1], "num_classes is 1: "),
        (["--criterion", "cross_entropy"], "criterion is cross_entropy: sentence_prediction_mos takes sentence_pred"),
        (["--regression-target"], "regression_target is True: sentence_prediction_mos predicts classes"),
        (["--report-mcc"], "report_mcc is True: of subnets, sentence_prediction_mos measures loss and accuracy"),
        (["--shard-data"], "shard_data is True: it is not offered for supernets"),
        (["--add-prev-output-tokens"], "add_prev_output_tokens is True: it is not offered for supernets"),
        (["--valid-subset", "dev"], "data is "),
        (["--arch", "roberta"], "arch is roberta: sentence_prediction_mos trains supernets (--arch roberta_mos)"),
        (["--best-checkpoint-metric", "mcc"], "best_checkpoint_metric is mcc: measured are accuracy, loss"),
        (
            ["--criterion", "label_smoothed_cross_entropy_mos", "--ignore-prefix-size", 1],
            "ignore_prefix_size is 1: classifiers predict no prefix",
        ),
        (["--criterion", "distillation_mos"], "criterion distillation_mos with subnet_sampling random: without --te"),
    ],
)
def test_mistakes_of_training(commands, text, spaces, tmp_path, options, words):
    arguments = training(text / "labelled", tmp_path / "none", spaces / "space.yaml", *options)
    assert commands.fork("train", *arguments, check=False).error().startswith(words)


BAD = {  # columns of a set, and how the error ends
    "unknown": ({"label": "abcd\nxyz\n"}, "line 2 of valid in label is <unk>: allowed is one of "),
    "two": ({"label": "abcd efgh\nabcd\n"}, "line 1 of valid in label is "),
    "empty": ({"label": "abcd\n\n"}, "line 2 of valid in label is empty: allowed is one of "),
    "fewer": ({"label": "abcd\n"}, "the columns of valid differ in their numbers of lines: input0 2, label 1"),
    "no second": ({"label": "abcd\nefgh\n", "input1": None}, "input1 holds no valid"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_bad_columns(commands, text, spaces, tmp_path, mistake):
    """Training, validation and search tell the line before they judge anything."""
    columns, words = BAD[mistake]
    data = relabelled(text / "labelled", tmp_path / "data")
    for column, lines in ({"input0": "a b\nc d\n"} | columns).items():
        if lines is None:
            (data / column).mkdir()
            continue
        (tmp_path / "lines").write_text(lines)
        known = ["--srcdict", text / "labelled" / column / "dict.txt"]
        made = ["--only-source", "--validpref", tmp_path / "lines", "--destdir", tmp_path / column, *known]
        commands.fork("preprocess", *made, "--padding-factor", 1)
        for ending in ("bin", "idx"):
            (tmp_path / column / f"valid.{ending}").rename(data / column / f"valid.{ending}")
    arguments = training(data, tmp_path / "none", spaces / "space.yaml")
    message = commands.fork("train", *arguments, check=False).error()
    assert message.startswith(f"data is {data}: {words}")


def relabelled(data: Path, folder: Path, change: Callable[[list[str]], list[str]] = list) -> Path:
    """A copy of a data folder in which ``change`` gives the lines of the dictionary of labels."""
    shutil.copytree(data, folder)
    dictionary = folder / "label" / "dict.txt"
    dictionary.write_text("".join(change(dictionary.read_text().splitlines(keepends=True))))
    return folder


def test_labels_of_another_order(commands, text, spaces, trained, tmp_path):
    """A checkpoint has its classes: other ones are refused wherever it is read."""
    names = [line.split()[0] for line in (text / "labelled" / "label" / "dict.txt").read_text().splitlines()]
    other = relabelled(text / "labelled", tmp_path / "other", lambda lines: lines[::-1])
    path = ["--path", trained[0] / "checkpoint_last.pt"]
    told = f"data is {other}: its labels are {' '.join(names[::-1])}, the checkpoint's {' '.join(names)}"
    task = ["--task", "sentence_prediction_mos", *PLUGIN, *path, "--batch-size", 7, *LOG]
    assert commands.fork("validate", other, *task, check=False).error() == told
    assert commands.fork("mos-search", other, *path, "--output", tmp_path / "none", check=False).error() == told
    resumed = ["--restore-file", path[1], "--max-epoch", 9, "--criterion", "distillation_mos"]
    resumed += ["--subnet-sampling", "sandwich"]
    arguments = training(other, tmp_path / "resumed", spaces / "space.yaml", *resumed)
    assert commands.fork("train", *arguments, check=False).error() == told
    started = ["--finetune-from-model", path[1], "--max-update", 1, "--disable-validation", "--no-save"]
    for data, warned in (other, True), (text / "labelled", False):
        out = commands.fork("train", *training(data, tmp_path / "new", spaces / "space.yaml", *started)).out
        assert (f"{told}; its classification head is taken row by row" in out) is warned
    hf = ["--subnet", "largest", "--format", "huggingface", "--allow-padding", "--data", other]
    message = commands.fork("mos-export", *path, *hf, "--output", tmp_path / "none", check=False).error()
    assert message == f"data is {other}: label/dict.txt is not the training's, {' '.join(names)} in this order"
    assert not (tmp_path / "none").exists()
    padded = relabelled(text / "labelled", tmp_path / "padded", lambda lines: [*lines, "madeupword0000 0\n"])
    assert commands.fork("validate", padded, *task).rows("valid")


def test_the_head_is_the_checkpoints(commands, text, trained):
    task = ["--task", "sentence_prediction_mos", *PLUGIN, "--path", trained[0] / "checkpoint_last.pt", *LOG]
    task += ["--batch-size", 7]
    message = commands.fork("validate", text / "labelled", *task, "--num-classes", 4, check=False).error()
    assert message == "num_classes is 4: it has no effect in fairseq-validate, only in fairseq-train"
    head = ["--criterion", "sentence_prediction", "--classification-head-name", "other"]
    message = commands.fork("validate", text / "labelled", *task, *head, check=False).error()
    assert message == f"classification_head_name is other, the checkpoint's {HEAD}"


def test_another_number_of_positions(commands, text, spaces, trained, tmp_path):
    start = ["--finetune-from-model", trained[0] / "checkpoint_last.pt", "--max-positions", 32]
    done = commands.fork("train", *training(text / "labelled", tmp_path, spaces / "space.yaml", *start), check=False)
    told = "the checkpoint's encoder has 16 positions, this run's has 32: give the training's number of positions"
    assert done.error().startswith(told)
    token = ["--separator-token", 999]
    done = commands.fork("train", *training(text / "labelled", tmp_path, spaces / "space.yaml", *token), check=False)
    assert done.error().startswith("separator_token is 999: ") and "has the numbers 0 to " in done.error()
    assert not list(tmp_path.iterdir())


def test_a_folder_without_labels(commands, text, spaces, tmp_path):
    arguments = training(text / "bin", tmp_path / "none", spaces / "space.yaml")
    message = commands.fork("train", *arguments, check=False).error()
    assert message.startswith(f"data is {text / 'bin'}: it lacks input0/dict.txt")


def test_what_classifiers_do_not_have(commands, text, spaces, trained, tmp_path):
    data, path = text / "labelled", ["--path", trained[0] / "checkpoint_last.pt"]
    output = ["--output", tmp_path / "none"]

    def refused(*words: object) -> str:
        return commands.fork(*words, check=False).error()

    alone = "task is sentence_prediction_mos: its subnets train on by fairseq-train --task sentence_prediction, from a"
    subnet = ["--subnet", spaces / "middle.yaml", *output]
    assert refused("mos-gap", "measure", data, *path, *subnet, "--metric", "loss", "--max-update", 3).startswith(alone)
    assert refused("mos-finetune", data, *path, *subnet, "--metric", "loss", "--updates", 3).startswith(alone)
    message = refused("mos-search", data, *path, *output, "--objective", "bleu")
    assert message == "objective is bleu: classifiers are judged by loss, accuracy"
    assert not (tmp_path / "none").exists()


def test_accuracy_is_not_of_words(text, spaces, commands, tmp_path):
    from .test_masked_language_model import training as masked

    few = ["--max-update", 1, "--disable-validation"]
    commands.fork("train", *masked(text / "bin", tmp_path, *few, space=spaces / "space.yaml"))
    with pytest.raises(InputError, match="objective is accuracy: models of family encoder_only are judged by loss$"):
        SubnetEvaluator(str(tmp_path / "checkpoint_last.pt"), str(text / "bin"), EvaluationOptions("accuracy"))
