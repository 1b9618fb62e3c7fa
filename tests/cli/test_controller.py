"""A controller through the commands: a training learns its answer and resumes, and commands use the answer."""

from __future__ import annotations

import json
import re

import pytest
import torch
import yaml
from fairseq import checkpoint_utils

import mos_fairseq  # noqa: F401  makes checkpoints readable
from mos_fairseq.cli import export, search
from mos_fairseq.search_space import Subnet
from tests.seeds import moved
from tests.spaces import BERT_SPACE, EVEN_LM_SPACE

from .conftest import USER_DIR, generation, training
from .test_bad_input import check
from .test_train import assert_equal

LEARNS = ["--subnet-sampling", "controller", "--controller-budget", "flops<=80%", "--controller-interval", 2]


def state_of(path) -> dict:
    return checkpoint_utils.load_checkpoint_to_cpu(str(path))


@pytest.fixture(scope="module")
def controlled(commands, joined, files, tmp_path_factory):
    """Return folder of checkpoints, and log of a run of ten updates (an epoch has six); the last six are in a resumed
    run."""
    folder = tmp_path_factory.mktemp("controlled")
    more = [*LEARNS, "--dropout", 0.2, "--controller-from", 2, "--valid-subnets", "largest,controller"]
    more += ["--best-checkpoint-metric", "loss_controller", "--no-epoch-checkpoints"]

    def run(name, updates):
        options = [*more, "--max-update", updates]
        return commands.fork("train", *training(joined, folder / name, *options, space=files / "space.yaml"))

    run("whole", 10), run("parts", 4)
    return folder, run("parts", 10)


def test_a_run_that_goes_on_has_learnt_what_it_had(controlled):
    whole, parts = (state_of(controlled[0] / name / "checkpoint_last.pt") for name in ("whole", "parts"))
    for part in ("model", "last_optimizer_state", "task_state"):
        assert_equal(whole[part], parts[part], part)
    learnt = whole["task_state"]["controller"]
    assert learnt["steps"] == 4 and learnt["next_update"] == 9
    assert any(max(row) > 0.55 for row in learnt["theta"])


def test_it_is_told_and_validated(controlled):
    row = controlled[1].rows("valid")[-1]
    assert {"valid_loss_largest", "valid_loss_controller"} <= row.keys()
    assert len(re.findall(r"controller after \d steps: .* mean probability of 0\.\d\d", controlled[1].out)) == 3


def test_its_answer_is_a_subnet(commands, controlled, joined, capsys, tmp_path):
    path = controlled[0] / "parts" / "checkpoint_last.pt"
    answer = Subnet.from_text(state_of(path)["task_state"]["controller"]["answer"])
    export.main(["--path", str(path), "--subnet", "controller", "--output", str(tmp_path / "twin.pt"), "--json"])
    assert Subnet.from_dict(json.loads(capsys.readouterr().out)["architecture"]) == answer
    found = commands.fork("generate", *generation(joined, path, "--subnet", "controller"))
    assert f"generating with subnet {answer.summary()}" in found.out + found.err
    plugin = ["--user-dir", USER_DIR, "--task", "translation_mos", "--path", path, "--max-tokens", 160]
    found = commands.fork("validate", joined, *plugin, "--subnet", "controller")
    assert "loss_controller" in found.out + found.err


def test_a_search_begins_with_its_answer(controlled, joined, capsys, tmp_path):
    path = controlled[0] / "parts" / "checkpoint_last.pt"
    more = ["--algorithm", "random", "--num-subnets", "1", "--cache", str(tmp_path / "cache"), "--json"]
    search.main([str(joined), "--path", str(path), "--output", str(tmp_path), "--seeds-from", "controller", *more])
    found = json.loads(capsys.readouterr().out)
    answer = Subnet.from_text(state_of(path)["task_state"]["controller"]["answer"])
    assert found["judged"] == 1 and Subnet.from_dict(found["algorithm_best"]["architecture"]) == answer


def test_without_a_controller_there_is_no_answer(supernet, joined, tmp_path):
    path = supernet[0] / "checkpoint_last.pt"
    message = "subnet is controller: the supernet was not trained with --subnet-sampling controller"
    with pytest.raises(mos_fairseq.errors.InputError, match=message):
        export.main(["--path", str(path), "--subnet", "controller", "--output", str(tmp_path / "twin.pt")])


@pytest.mark.parametrize("family", ["decoder_only", "encoder_only"])
def test_other_families(commands, monolingual, family, tmp_path):
    """Three updates, and the controller learns from held-out text in each."""
    space, task, arch = {
        "decoder_only": (EVEN_LM_SPACE, "language_modeling_mos", "transformer_lm_mos"),
        "encoder_only": (BERT_SPACE, "masked_lm_mos", "roberta_mos"),
    }[family]
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    words = ["--user-dir", USER_DIR, "--task", task, "--arch", arch, "--search-space", tmp_path / "space.yaml"]
    words += ["--criterion", "cross_entropy" if family == "decoder_only" else "masked_lm", "--max-tokens", 160]
    words += ["--tokens-per-sample", 16, "--sample-break-mode", "eos", "--num-workers", 0, "--no-epoch-checkpoints"]
    words += ["--optimizer", "adam", "--lr", 0.01, "--max-update", 3, "--seed", moved(1), "--disable-validation"]
    commands.fork("train", monolingual, *words, *LEARNS, "--controller-interval", 1, "--save-dir", tmp_path)
    learnt = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)["task_state"]["controller"]
    assert learnt["steps"] == 3 and Subnet.from_text(learnt["answer"]).family.name == family


def test_a_set_that_is_not_there(commands, joined, files, tmp_path):
    options = [*LEARNS, "--controller-subset", "other"]
    done = commands.fork("train", *training(joined, tmp_path, *options, space=files / "space.yaml"), check=False)
    check(done, tmp_path, ["the data folder holds no other pairs of these languages"])
