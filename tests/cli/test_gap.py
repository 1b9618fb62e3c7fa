"""mos-gap end to end: scores as fairseq finds them, trainings that are shared, killed and gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sacrebleu
import torch

from mos_fairseq.cli.gap import _experiment, get_parser, main
from mos_fairseq.errors import InputError
from tests.processes import until

from .conftest import generation, same_words, training

pytestmark = pytest.mark.slow

SEARCH = ["--beam", 2, "--max-len-a", 0, "--max-len-b", 10]  # of conftest's `generation`
BUDGET = ["--max-update", 40]
MORE = ["--", "--lr", 0.02, "--dropout", 0.0]


def arguments(joined, supernet, output, *options: object) -> list[object]:
    path = [] if "--path" in options else ["--path", supernet[0] / "checkpoint_last.pt"]
    return ["measure", joined, *path, *SEARCH, "--output", output, *options]


def rows_of(output: Path) -> dict[tuple[str, str, str], dict]:
    rows = map(json.loads, (output / "gap.jsonl").read_text().splitlines())
    return {(row["supernet"], row["metric"], row["subnet"]): row for row in rows}


@pytest.fixture(scope="module")
def measured(commands, joined, supernet, text, tmp_path_factory):
    """Return (output folder, finished command) of two architectures, trained alone."""
    output = tmp_path_factory.mktemp("gap")
    chosen = ["--subnet", "smallest", "--num-subnets", 1, "--seed", 7, "--reference", text / "test.yy"]
    return output, commands.fork("mos-gap", *arguments(joined, supernet, output, *chosen, *BUDGET, *MORE))


def test_scores_are_those_of_fairseq_generate(commands, joined, supernet, text, measured):
    output, rows = measured[0], rows_of(measured[0])
    references = (text / "test.yy").read_text().splitlines()
    content = json.loads((output / "gap.json").read_text())
    alone = Path(content["standalone"]["runs"]["smallest"]["folder"]) / "checkpoint_40.pt"
    whole = ["--required-batch-size-multiple", 1]
    inherited = generation(joined, supernet[0] / "checkpoint_last.pt", "--subnet", "smallest")
    standalone = generation(joined, alone, *whole, task="translation")
    for kind, words in (("inherited", inherited), ("standalone", standalone)):
        generated = [text for _, text in sorted(commands.fork("generate", *words).hypotheses().items())]
        (kept,) = output.rglob("*-smallest-*.txt") if kind == "inherited" else alone.parent.glob("scores-40-*.txt")
        hypotheses = kept.read_text().splitlines()
        assert same_words(hypotheses, generated)
        assert rows["supernet", "bleu", "smallest"][kind] == sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert rows["supernet", "loss", "smallest"]["inherited"] != rows["supernet", "loss", "random7"]["inherited"]
    assert "nrefs:1" in content["signature"] and content["versions"]["sacrebleu"] == sacrebleu.__version__


def test_report(measured):
    output, done = measured
    content = json.loads((output / "gap.json").read_text())
    bleu, loss = content["gaps"]
    differences = [
        row["inherited"] - row["standalone"] for (_, metric, _), row in rows_of(output).items() if metric == "loss"
    ]
    assert loss["bias"] == pytest.approx(sum(differences) / 2) and (bleu["metric"], bleu["subnets"]) == ("bleu", 2)
    lines = done.out.splitlines()
    assert lines[0].split() == ["bleu", "alone", "supernet"] and [line.split()[0] for line in lines[1:3]] == [
        "smallest",
        "random7",
    ]
    assert (output / "gap.png").read_bytes().startswith(b"\x89PNG")
    command = content["standalone"]["runs"]["random7"]["command"]
    assert "--label-smoothing 0.1" in command and "--share-all-embeddings" in command and "--max-update 40" in command
    assert command.endswith("--lr 0.02 --dropout 0.0") and "--lr 0.01" not in command
    assert "--distributed-world-size 1 " in command  # however many GPUs there are
    assert "smallest reaches BLEU" in done.err


def test_standalone_models_are_shared(commands, joined, supernet, text, measured, tmp_path):
    """By two supernets and another run, which then trains nothing; a table of its scores gives the same report."""
    output, _ = measured
    logs = {path: path.stat().st_mtime_ns for path in output.rglob("train.log")}
    paths = ["--path", f"a={supernet[0] / 'checkpoint_last.pt'}", "--path", f"b={supernet[0] / 'checkpoint_best.pt'}"]
    chosen = ["--subnet", "smallest", "--reference", text / "test.yy", "--standalone", output / "standalone", "--json"]
    more = ["--", "--dropout", 0.0, "--lr=0.02", "--num-workers", 0]
    done = commands.fork("mos-gap", *arguments(joined, supernet, tmp_path / "two", *chosen, *paths, *BUDGET, *more))
    assert len(logs) == 2 and {path: path.stat().st_mtime_ns for path in output.rglob("train.log")} == logs
    old, new = rows_of(output), rows_of(tmp_path / "two")
    sure = {name: new["a", "bleu", "smallest"][name] for name in ("supernet", "bleu_ci")}
    assert new["a", "bleu", "smallest"] == old["supernet", "bleu", "smallest"] | sure
    assert sure["bleu_ci"] > 0 and 0 < new["b", "bleu", "smallest"]["p_value"] <= 1
    assert new["b", "bleu", "smallest"]["compared_with"] == "a"
    assert new["a", "loss", "smallest"]["standalone"] == new["b", "loss", "smallest"]["standalone"]
    report = ["report", tmp_path / "two" / "gap.jsonl", "--output", tmp_path / "table", "--json"]
    again = commands.fork("mos-gap", *report)
    assert json.loads(again.out) == json.loads(done.out) and len(json.loads(done.out)) == 4
    assert (tmp_path / "table" / "gap.png").exists()


@pytest.mark.parametrize(
    ("options", "metric", "signature"),
    [(["--metric", "chrf"], "chrf", "nc:6|"), (["--sacrebleu-tokenizer", "char"], "bleu", "tok:char|")],
)
def test_other_scores(commands, joined, supernet, text, measured, tmp_path, options, metric, signature):
    """Of the models that another run has trained."""
    folders = ["--standalone", measured[0] / "standalone", "--bootstrap", 50]
    paths = ["--path", f"a={supernet[0] / 'checkpoint_last.pt'}", "--path", f"b={supernet[0] / 'checkpoint_best.pt'}"]
    chosen = ["--subnet", "smallest", "--reference", text / "test.yy", *folders, *paths, *options]
    logs = {path: path.stat().st_mtime_ns for path in measured[0].rglob("train.log")}
    done = commands.fork("mos-gap", *arguments(joined, supernet, tmp_path, *chosen, *BUDGET, *MORE))
    assert {path: path.stat().st_mtime_ns for path in measured[0].rglob("train.log")} == logs
    content, rows = json.loads((tmp_path / "gap.json").read_text()), rows_of(tmp_path)
    assert signature in content["signature"]
    assert {gap["metric"] for gap in content["gaps"]} == {metric, "loss"}
    mine, old = rows["a", metric, "smallest"], rows_of(measured[0])
    (kept,) = (tmp_path / "inherited").glob("a-smallest-*.txt")
    hypotheses, references = kept.read_text().splitlines(), [(text / "test.yy").read_text().splitlines()]
    wanted = {
        "chrf": sacrebleu.corpus_chrf(hypotheses, references).score,
        "bleu": sacrebleu.corpus_bleu(hypotheses, references, tokenize="char").score,
    }
    assert mine["inherited"] == wanted[metric]
    assert mine[f"{metric}_ci"] > 0 and f"{'chrF' if metric == 'chrf' else 'BLEU'} less another's (p)" in done.out
    assert rows["a", "loss", "smallest"]["standalone"] == old["supernet", "loss", "smallest"]["standalone"]


def test_raw_data(commands, raw, supernet, text, measured, tmp_path):
    """A set that fairseq-preprocess kept as text is scored as its binarised form, and can be trained on."""
    chosen = ["--subnet", "smallest", "--reference", text / "test.yy", "--max-update", 2]
    commands.fork("mos-gap", *arguments(raw, supernet, tmp_path, *chosen, *MORE))
    mine, theirs = (rows_of(output)["supernet", "loss", "smallest"] for output in (tmp_path, measured[0]))
    assert mine["inherited"] == theirs["inherited"] and mine["standalone"] != theirs["standalone"]


def test_a_killed_run_goes_on_and_fine_tunes(commands, one_answer, supernet, tmp_path):
    """Fine-tune on data that a model trained alone has learned and the supernet has not."""
    tuning = ["--finetune-updates", "1,60", "--finetune-options", "--lr 0.01 --seed 3"]
    words = arguments(one_answer, supernet, tmp_path, "--subnet", "largest", "--max-update", 90, *tuning, *MORE)
    running = commands.start("mos-gap", *words)
    last = until(lambda: next(tmp_path.rglob("checkpoint_last.pt"), None))
    assert running.kill().status == -9
    folder = last.parents[1]
    assert not list(folder.glob("checkpoint_*.pt"))
    (judged,) = (tmp_path / "inherited").glob("*.json")
    when = judged.stat().st_mtime_ns
    done = commands.fork("mos-gap", *words)
    log = (folder / "train.log").read_text()
    assert log.count("Loaded checkpoint") == 1 and log.count("done training") == 1
    assert judged.stat().st_mtime_ns == when
    row, losses = (rows_of(tmp_path)["supernet", metric, "largest"] for metric in ("bleu", "loss"))
    assert [*row["finetuned"]] == ["1", "60"]
    scores = {0: row["inherited"]} | {int(updates): score for updates, score in row["finetuned"].items()}
    reached = [updates for updates, score in scores.items() if score >= row["standalone"]]
    assert row["standalone"] > 90 and not {0, 1} & set(reached)
    assert row["extra_updates"] == (reached[0] if reached else None)
    assert losses["finetuned"]["60"] < losses["finetuned"]["1"]
    first, second = sorted((log.read_text() for log in (tmp_path / "finetuned").rglob("train.log")), key=len)
    assert first.count("loading pretrained model from") == second.count("loading pretrained model from") == 1
    assert "@ 1 updates" in first and "@ 1 updates" not in second
    assert "'lr_scheduler': {'_name': 'polynomial_decay'" in second and "'total_num_update': 60.0" in second
    assert "after 60 updates more" in done.err and "extra updates" in done.out
    assert "gap.png, finetuning.png" in done.out and (tmp_path / "finetuning.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no subnets are given"),
        (["--subnet", "largest", "--max-update", 0], "max_update is 0"),
        (["--subnet", "largest", "--workers", 0], "workers is 0"),
        (["--num-subnets", -1], "num_subnets is -1"),
        (["--subnet", "largest", "--bootstrap", -1], "bootstrap is -1"),
        (["--subnet", "largest", "--seed", 3], "seed is 3: it has no effect without --num-subnets"),
        (["--subnet", "largest", "--bootstrap", 10], "bootstrap is 10: it has no effect with one supernet"),
        (["--subnet", "largest", "--finetune-options", "--lr 1"], "is --lr 1: it has no effect without --finetune-upd"),
        (["--subnet", "largest", "--finetune-updates", 3, "--finetune-options=--lr '1"], "(no closing quotation)"),
        (["--subnet", "largest", "--metric", "loss"], "it has no effect with metric loss"),
        (["--num-subnets", 2, "--subnet", "random:2"], "'random:2' is given twice"),
        (["--subnet", "huge"], "subnet 'huge': no such file"),
        (["--subnet", "largest", "--finetune-updates", "20,10"], "finetune_updates is 20,10: allowed are increasing"),
        (["--subnet", "largest", "--finetune-updates", "20,x"], "finetune_updates is 20,x: allowed are whole"),
        (["--subnet", "largest", "--gen-subset", "dev"], "dev"),
        (["--subnet", "largest", "--max-len-a", "nan"], "max_len_a is nan: allowed are numbers from 0"),
        (["--subnet", "largest", "--metric", "chrf", "--sacrebleu-tokenizer", "zh"], "it belongs to bleu"),
        (["--subnet", "largest", "--reference", "no.txt"], "reference no.txt: cannot be read"),
        (["--subnet", "largest", "--reference", __file__], "lines for 12 sentences"),
        (["--subnet", "largest", "--reference", "setup.py", "--valid-samples", 3], "it does not go with valid_samples"),
        (["--subnet", "largest", "--path", "x y=a.pt"], "path x y=a.pt: the name may hold"),
        (["--subnet", "largest", "--path", "no.pt"], "checkpoint no.pt: no such file"),
        (["--subnet", "largest", "--path", "a.pt", "--path", "b.pt"], "give each supernet a name of its own"),
        (["--subnet", "largest", "--", "--arch", "transformer"], "--arch cannot be given after --: mos-gap sets it"),
        (["--subnet", "largest", "--", "--distributed-world-size", 2], "--distributed-world-size cannot be given"),
        (["--subnet", "largest", "--", "--lr-scheduler", "cosinus"], "--lr-scheduler is cosinus: this fairseq has"),
    ],
)
def test_bad_input(joined, supernet, tmp_path, log_level, options, message):
    with pytest.raises(InputError) as error:
        main([str(word) for word in arguments(joined, supernet, tmp_path / "out", *options)])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_supernets_that_do_not_compare(commands, joined, supernet, files, tmp_path, log_level):
    """Another space, another way of training."""
    for name, more in (("other", ["--max-update", 1]), ("smooth", ["--label-smoothing", 0.3, "--max-update", 1])):
        space = files / ("space.yaml" if name == "smooth" else "other.yaml")
        commands.fork("train", *training(joined, tmp_path / name, *more, "--validate-interval", 5, space=space))
    messages = {
        "other": "supernets a and b have different search spaces: encoder_ffn_embed_dim",
        "smooth": "supernets a and b were trained with --label-smoothing 0.1 and --label-smoothing 0.3",
    }

    def run(name: str, *options: object) -> None:
        paths = [f"a={supernet[0]}/checkpoint_last.pt", f"b={tmp_path / name}/checkpoint_last.pt"]
        chosen = ["--path", paths[0], "--path", paths[1], "--subnet", "largest", *options]
        main([str(word) for word in arguments(joined, supernet, tmp_path / "out", *chosen)])

    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            run(name, "--max-update", 3)
    with pytest.raises(InputError, match=r"numbers of updates \(a 60, b 1\): give --max-update"):
        run("smooth", "--", "--label-smoothing", 0)
    state = torch.load(supernet[0] / "checkpoint_last.pt")  # as two processes leave it
    state["cfg"]["distributed_training"]["distributed_world_size"] = 2
    (tmp_path / "two").mkdir()
    torch.save(state, tmp_path / "two" / "checkpoint_last.pt")
    with pytest.raises(InputError, match="trained with no --update-freq and --update-freq 2: give --update-freq"):
        run("two")
    with pytest.raises(InputError, match="--lr-scheduler is cosinus: this fairseq has"):
        words = ["--subnet", "largest", "--finetune-updates", "2", "--finetune-options=--lr-scheduler cosinus"]
        main([str(word) for word in arguments(joined, supernet, tmp_path / "out", *words)])
    assert not (tmp_path / "out").exists()


def test_each_supernet_is_fine_tuned_from_its_own_rate(joined, supernet, tmp_path):
    """Rate and schedule of the standalone models, after --, are not those of fine-tuning; other options are."""
    paths = []
    for name, rate in {"a": 0.03, "b": 0.06, "c": None}.items():
        state = torch.load(supernet[0] / "checkpoint_last.pt", weights_only=False)
        for group in state["last_optimizer_state"]["param_groups"]:
            group["lr"] = rate
        torch.save(state, tmp_path / f"{name}.pt")
        paths += ["--path", f"{name}={tmp_path / name}.pt"]

    def experiment(*more: str, paths=tuple(paths[:4])):
        words = ["--subnet", "largest", "--finetune-updates", "60", *paths]
        args = get_parser().parse_args([str(word) for word in arguments(joined, supernet, tmp_path, *words)])
        return _experiment(args, list(more))

    found = experiment("--lr", "0.5", "--warmup-updates=7", "--lr-scheduler", "fixed", "--dropout", "0.3")
    found.check()
    short = "--lr-scheduler polynomial_decay --total-num-update 60 --warmup-updates 6 --end-learning-rate 0.0"
    for name, rate in {"a": 0.03, "b": 0.06}.items():
        assert " ".join(found._finetuning(name, 60).more) == f"--dropout 0.3 --lr {rate} {short}"
    with pytest.raises(InputError, match=r"c\.pt: its optimizer's state has no learning rate: give --finetune-options"):
        experiment(paths=paths[4:]).check()


def test_failures_are_told_in_one_line(commands, joined, supernet, tmp_path):
    options = ["--subnet", "smallest", "--max-update", 3, "--", "--lr-scheduler", "exponential_constant"]
    done = commands.fork("mos-gap", *arguments(joined, supernet, tmp_path, *options), check=False)
    *progress, error = done.err.splitlines()
    assert done.status == 1 and len(progress) == 2  # the inherited score, and what is to be trained
    assert error.startswith("error: training failed (status 1): decay_updates is 0") and "train.log" in error
