"""mos-finetune end to end: the written model is the scored one, a killed run resumes, mistakes are reported first."""

from __future__ import annotations

import json
import re

import pytest
import torch

from mos_fairseq.cli.finetune import main
from mos_fairseq.errors import InputError
from tests.processes import until

from .conftest import generation, same_words

pytestmark = pytest.mark.slow

SEARCH = ["--beam", 2, "--max-len-a", 0, "--max-len-b", 10]  # of conftest's `generation`


def arguments(data, supernet, output, *options: object) -> list[object]:
    path = ["--path", supernet[0] / "checkpoint_last.pt"]
    return [data, *path, "--subnet", "smallest", "--updates", 60, *SEARCH, "--output", output, *options]


@pytest.fixture(scope="module")
def finetuned(commands, one_answer, supernet, tmp_path_factory):
    """Return (output folder, output text) of a subnet that has learned more than its supernet; killed on the way."""
    output = tmp_path_factory.mktemp("finetune") / "tuned"
    words = arguments(one_answer, supernet, output, "--", "--dropout", 0.0, "--seed", 3, "--log-interval", 1)
    running = commands.start("mos-finetune", *words)
    until(lambda: next(output.rglob("checkpoint_last.pt"), None))
    assert running.kill().status == -9 and not (output / "finetuned.pt").exists()
    return output, commands.fork("mos-finetune", *words)


def test_it_goes_on_and_gets_better(finetuned):
    output, done = finetuned
    (log,) = output.rglob("train.log")
    assert log.read_text().count("loading pretrained model from") == 1 and "Loaded checkpoint" in log.read_text()
    scores = json.loads((output / "finetune.json").read_text())["scores"]
    assert scores["finetuned"]["loss"] < scores["inherited"]["loss"]
    header, inherited, tuned = (line.split() for line in done.out.splitlines()[1:4])
    assert header == ["weights", "bleu", "loss"]
    assert inherited == ["inherited", f"{scores['inherited']['bleu']:.2f}", f"{scores['inherited']['loss']:.4f}"]
    assert tuned[0] == "finetuned" and float(tuned[2]) == round(scores["finetuned"]["loss"], 4)


def test_a_training_in_a_process_of_its_own(joined, supernet, tmp_path, log_level):
    """As users have it; in the other tests of trainings, the process is a fork."""
    main(list(map(str, arguments(joined, supernet, tmp_path / "tuned", "--updates", 1))))
    assert (tmp_path / "tuned" / "finetuned.pt").exists()
    assert set(json.loads((tmp_path / "tuned" / "finetune.json").read_text())["scores"]) == {"inherited", "finetuned"}


def test_the_learning_rate_begins_where_the_supernet_ended_and_falls_to_zero(finetuned, supernet):
    (log,) = finetuned[0].rglob("train.log")
    rates = [float(rate) for rate in re.findall(r", lr=([^,]+),", log.read_text())]
    state = torch.load(supernet[0] / "checkpoint_last.pt")
    last = state["last_optimizer_state"]["param_groups"][0]["lr"]
    assert max(rates) == pytest.approx(last, rel=0.05) and rates[-1] == 0


def test_the_model_is_the_one_that_was_scored(commands, one_answer, finetuned):
    """As fairseq's own task translates with it; it keeps no optimizer state."""
    output, _ = finetuned
    words = ["--gen-subset", "valid", "--required-batch-size-multiple", 1]
    done = commands.fork("generate", *generation(one_answer, output / "finetuned.pt", *words, task="translation"))
    record = json.loads((output / "finetune.json").read_text())
    kept = open(record["scores"]["finetuned"]["hypotheses"]).read().splitlines()
    assert same_words(kept, [text for _, text in sorted(done.hypotheses().items())])
    assert "last_optimizer_state" not in torch.load(output / "finetuned.pt")


def test_started_again_it_trains_nothing(commands, one_answer, supernet, finetuned):
    output, done = finetuned
    (log,) = output.rglob("train.log")
    before = log.stat().st_mtime_ns
    words = ["--json", "--", "--dropout", 0.0, "--seed", 3, "--log-interval", 1]
    again = json.loads(commands.fork("mos-finetune", *arguments(one_answer, supernet, output, *words)).out)
    assert log.stat().st_mtime_ns == before and again["output"] == str(output / "finetuned.pt")
    assert f"{again['finetuned']['loss']:.4f}" in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--updates", 0], "updates is 0"),
        (["--lr", 0], "lr is 0.0: allowed are numbers above 0"),
        (["--lr", "nan"], "lr is nan: allowed are numbers above 0"),
        (["--lr", 0.1, "--", "--lr", 0.2], "lr is 0.1, and --lr is given after -- too"),
        (["--subnet", "huge"], "subnet 'huge': no such file"),
        (["--path", "no.pt"], "checkpoint no.pt: no such file"),
        (["--gen-subset", "dev"], "dev"),
        (["--metric", "loss"], "beam is 2: it has no effect with metric loss"),
        (["--", "--max-update", 3], "--max-update cannot be given after --: mos-finetune sets it"),
        (["--", "--lr-scheduler", "cosinus"], "--lr-scheduler is cosinus: this fairseq has"),
    ],
)
def test_bad_input(joined, supernet, tmp_path, log_level, options, message):
    with pytest.raises(InputError) as error:
        main([str(word) for word in arguments(joined, supernet, tmp_path / "out", *options)])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.pt")) or "dev" in message


def test_a_checkpoint_that_tells_no_learning_rate(joined, supernet, tmp_path, log_level):
    state = torch.load(supernet[0] / "checkpoint_last.pt")
    del state["last_optimizer_state"]
    torch.save(state, tmp_path / "bare.pt")
    words = arguments(joined, supernet, tmp_path / "out", "--path", tmp_path / "bare.pt")
    with pytest.raises(InputError, match="its optimizer's state has no learning rate: give --lr"):
        main([str(word) for word in words])


def test_language_models_are_refused(monolingual, language_supernet, tmp_path, log_level):
    words = arguments(monolingual, [tmp_path], tmp_path / "o", "--path", language_supernet)
    with pytest.raises(InputError, match="mos-finetune: for encoder_decoder, encoder_only, .* is decoder_only"):
        main([str(word) for word in words])
