"""mos-search end to end, and its judge against fairseq-validate and fairseq-generate."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mos_fairseq.cli.search_results import latency_options
from mos_fairseq.cli.search_table import closing_rows
from mos_fairseq.cost import CostOptions, subnet_cost
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import EvaluationOptions, SubnetEvaluator
from mos_fairseq.latency import REPEATS, read_latencies
from mos_fairseq.modules import onednn
from mos_fairseq.nas.landmarks import uniform_subnets
from mos_fairseq.search_space import SearchSpace, Subnet, resolve_subnet
from tests.processes import until
from tests.spaces import EVEN_SPACE

from .conftest import ROOT, USER_DIR, generation, same_words

pytestmark = pytest.mark.slow

AT_ONCE = ROOT / "tests" / "at_once.py"
SMALL = ["--population-size", 12, "--parents", 4, "--mutations", 5, "--crossovers", 5, "--iterations", 4]
SMALL_FOR = {"evolution": SMALL, "nsga2": [*SMALL[:2], *SMALL[-2:]], "random": []}


def search(commands, joined, supernet, output, *options: object, **kwargs):
    """With one thread: more, which several workers share out among them, add up in another order."""
    path = ["--path", supernet[0] / "checkpoint_last.pt", "--output", output, "--cache", output / "cache"]
    algorithm = options[options.index("--algorithm") + 1] if "--algorithm" in options else "evolution"
    return commands.fork("mos-search", joined, *path, *SMALL_FOR[algorithm], *options, threads=1, **kwargs)


def params(architecture: dict) -> int:
    return subnet_cost(Subnet.from_dict(architecture), CostOptions()).params_without_embeddings


def flops(architecture: dict) -> float:
    return subnet_cost(Subnet.from_dict(architecture), CostOptions()).flops_without_output_projection


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def budget() -> int:
    space = SearchSpace.from_dict(EVEN_SPACE)
    return sum(params(subnet.to_dict()) for subnet in (space.largest(), space.smallest())) // 2


def test_losses_are_those_of_fairseq_validate(commands, joined, supernet):
    checkpoint = supernet[0] / "checkpoint_last.pt"
    arguments = [joined, "--user-dir", USER_DIR, "--task", "translation_mos", "--path", checkpoint]
    options = ["--max-tokens", 60, "--log-format", "json", "--valid-subnets", "random:7,largest"]
    row = commands.fork("validate", *arguments, *options).rows("valid")[-1]
    evaluator = SubnetEvaluator(str(checkpoint), str(joined), EvaluationOptions(max_tokens=50))
    for name in ("random:7", "largest"):
        loss = evaluator.evaluate(resolve_subnet(name, evaluator.space))
        assert loss == pytest.approx(float(row[f"valid_nll_loss_{name.replace(':', '')}"]), abs=0.002)
    few = SubnetEvaluator(str(checkpoint), str(joined), EvaluationOptions(valid_samples=5))
    assert sum(len(batch["target"]) for batch in few.batches) == 5
    assert few.evaluate(few.space.largest()) != evaluator.evaluate(few.space.largest())
    assert few.fingerprint() != evaluator.fingerprint()


def test_the_fingerprint_is_of_what_was_read(joined, supernet, tmp_path, monkeypatch, caplog):
    """Sentences, dictionaries and checkpoint, not the names of files; and of the checkpoint as it was loaded."""
    checkpoint = shutil.copy(supernet[0] / "checkpoint_last.pt", tmp_path / "model.pt")
    shutil.copytree(joined, tmp_path / "data")

    def load(**options) -> SubnetEvaluator:
        return SubnetEvaluator(str(checkpoint), str(tmp_path / "data"), EvaluationOptions(valid_samples=6, **options))

    first = load()
    for ending in ("xx-yy.xx.bin", "xx-yy.xx.idx", "xx-yy.yy.bin", "xx-yy.yy.idx"):
        (tmp_path / "data" / f"valid.{ending}").rename(tmp_path / "data" / f"valid.{ending.replace('xx-yy', 'yy-xx')}")
    assert load().fingerprint() == first.fingerprint()
    for ending in ("bin", "idx"):
        shutil.copy(joined / f"test.xx-yy.yy.{ending}", tmp_path / "data" / f"valid.yy-xx.yy.{ending}")
        shutil.copy(joined / f"test.xx-yy.xx.{ending}", tmp_path / "data" / f"valid.yy-xx.xx.{ending}")
    assert load().fingerprint() != first.fingerprint()
    with open(checkpoint, "ab") as file:
        file.write(b"\0")
    assert first.fingerprint() == first.fingerprint() and load().fingerprint() != first.fingerprint()
    words = first.task.target_dictionary
    unknown = torch.tensor([words.unk(), words.eos()])
    assert first._text(unknown) != first._text(unknown, escape_unk=True)
    assert "--remove-bpe" not in caplog.text  # others may log
    first.options = EvaluationOptions(objective="bleu")
    words.add_symbol("▁piece")
    first._warn_of_pieces()
    assert "--remove-bpe sentencepiece" in caplog.text

    def written_meanwhile(self):
        Path(checkpoint).write_bytes(b"another")
        return []

    monkeypatch.setattr(SubnetEvaluator, "_batches", written_meanwhile)
    with pytest.raises(InputError, match="it changed while it was read"):
        load()


def test_raw_data(joined, raw, supernet):
    """Sets that fairseq-preprocess kept as text are the same sets."""
    checkpoint = str(supernet[0] / "checkpoint_last.pt")
    binary, text = (SubnetEvaluator(checkpoint, str(data), EvaluationOptions()) for data in (joined, raw))
    assert text.fingerprint() == binary.fingerprint() and text.references() == binary.references()


def test_bleu_is_that_of_fairseq_generate(commands, joined, supernet):
    checkpoint = supernet[0] / "checkpoint_last.pt"
    options = ["--gen-subset", "valid", "--subnet", "random:7", "--scoring", "sacrebleu"]
    done = commands.fork("generate", *generation(joined, checkpoint, *options))
    wanted = float(done.out.split("BLEU = ")[-1].split()[0])
    evaluation = EvaluationOptions(objective="bleu", beam=2, max_len_a=0, max_len_b=10)
    evaluator = SubnetEvaluator(str(checkpoint), str(joined), evaluation)
    subnet = resolve_subnet("random:7", evaluator.space)
    bleu = evaluator.evaluate(subnet)
    evaluator.model.set_active_subnet(subnet)
    found, expected = evaluator.translate()[0], [words for _, words in sorted(done.hypotheses().items())]
    assert same_words(found, expected)
    assert found != expected or bleu == pytest.approx(wanted, abs=0.01)


def test_a_language_without_spaces_is_warned_of(joined, supernet, tmp_path, caplog):
    """The same set in other words, of a language that 13a does not split, and a checkpoint that knows no words."""
    shutil.copytree(joined, tmp_path / "data")
    state = torch.load(supernet[0] / "checkpoint_last.pt", weights_only=False)
    del state["task_state"]["words"]
    torch.save(state, tmp_path / "older.pt")
    for dictionary in (tmp_path / "data").glob("dict.*.txt"):
        dictionary.write_text("".join(f"{'海' * 9}{line}\n" for line in dictionary.read_text().splitlines()))
    for name, warned in (("13a", True), ("char", False)):
        options = EvaluationOptions("bleu", valid_samples=3, sacrebleu_tokenizer=name)
        SubnetEvaluator(str(tmp_path / "older.pt"), str(tmp_path / "data"), options)
        assert ("give --sacrebleu-tokenizer" in caplog.text) == warned
        caplog.clear()


@pytest.mark.parametrize(
    ("options", "signature"),
    [(["--objective", "chrf"], "nc:6|"), (["--objective", "bleu", "--sacrebleu-tokenizer", "char"], "tok:char|")],
)
def test_other_scores_of_translations(commands, joined, supernet, tmp_path, options, signature):
    few = ["--algorithm", "random", "--num-subnets", 2, "--valid-samples", 4, "--beam", 1]
    search(commands, joined, supernet, tmp_path, *few, *options)
    results = json.loads((tmp_path / "search.json").read_text())
    assert signature in results["signature"] and results["objective"] == options[1]
    best = Subnet.from_dict(results["best"]["architecture"])
    tokenizer = {"sacrebleu_tokenizer": "char"} if "char" in options else {}
    judged = EvaluationOptions(options[1], valid_samples=4, beam=1, **tokenizer)
    evaluator = SubnetEvaluator(str(supernet[0] / "checkpoint_last.pt"), str(joined), judged)
    assert [path.stem for path in (tmp_path / "cache").glob("*.jsonl")] == [evaluator.fingerprint()]
    assert results["best"][options[1]] == pytest.approx(evaluator.evaluate(best), abs=1e-5)


def test_bleu_of_the_closing_table(commands, joined, supernet, tmp_path):
    few = ["--algorithm", "random", "--num-subnets", 3, "--valid-samples", 8, "--beam", 2, "--report-bleu"]
    done = search(commands, joined, supernet, tmp_path, *few)
    results = json.loads((tmp_path / "search.json").read_text())
    judged = EvaluationOptions("bleu", valid_samples=8, beam=2)
    evaluator = SubnetEvaluator(str(supernet[0] / "checkpoint_last.pt"), str(joined), judged)
    rows = closing_rows(results)
    assert {"smallest", "largest", "best", "front 1"} <= rows.keys() and results["objective"] == "loss"
    for name, row in rows.items():
        same = row["architecture"] == results["best"]["architecture"]
        assert row["bleu"] == pytest.approx(evaluator.evaluate(Subnet.from_dict(row["architecture"])), abs=1e-5), name
        assert row["bleu_ci"] >= 0 and ("p_value" in row) == (not same)
    lines = [line.replace("front ", "front").split() for line in done.out.splitlines()]
    header, smallest = (next(line for line in lines if line[0] == name) for name in ("subnet", "smallest"))
    assert header[:4] == ["subnet", "loss", "bleu", "p"]
    assert smallest[2] == f"{rows['smallest']['bleu']:.1f}±{rows['smallest']['bleu_ci']:.1f}"


def test_evolution_within_a_budget(commands, joined, supernet, tmp_path, budget):
    done = search(commands, joined, supernet, tmp_path / "out", "--constraint", f"params_without_embeddings<={budget}")
    results = json.loads((tmp_path / "out" / "search.json").read_text())
    best = Subnet.load(tmp_path / "out" / "best.yaml")
    assert best.to_dict() == results["best"]["architecture"]
    assert params(best.to_dict()) == results["best"]["params_without_embeddings"] <= budget
    assert (tmp_path / "out" / "front.png").read_bytes().startswith(b"\x89PNG")
    (judged,) = (tmp_path / "out" / "cache").iterdir()
    losses = {row["key"]: row["loss"] for row in map(json.loads, judged.read_text().splitlines())}
    # subnets to compare are judged last: smallest, largest, and at most 20 uniform ones and eight beyond
    assert 30 <= results["judged"] <= len(losses) <= results["judged"] + 30
    found = list(losses.values())[: results["judged"]]
    assert results["algorithm_best"]["loss"] == min(found)
    within = {key: loss for key, loss in losses.items() if params(json.loads(key)) <= budget}
    assert losses[best.key] == min(within.values()) == results["best"]["loss"]  # the compared ones count, too
    front = {Subnet.from_dict(row["architecture"]).key: row for row in results["front"]}
    assert front.keys() <= within.keys()
    costs = {key: flops(json.loads(key)) for key in within}
    assert results["cost"] == "flops"
    for key, row in front.items():
        cheaper = [loss for other, loss in within.items() if costs[other] < costs[key]]
        assert row["loss"] == losses[key] < min(cheaper, default=float("inf"))
    assert best.summary() in done.out
    compared = {name: Subnet.from_dict(row["architecture"]) for name, row in results["compared"].items()}
    space = SearchSpace.from_dict(EVEN_SPACE)
    assert (compared["smallest"], compared["largest"]) == (space.smallest(), space.largest())
    uniform = {s.key: params(s.to_dict()) for s in uniform_subnets(space) if params(s.to_dict()) <= budget}
    assert max(uniform.values()) == max(uniform[key] for key in losses if key in uniform)
    assert losses[compared["uniform"].key] == min(losses[key] for key in uniform if key in losses)
    assert Subnet.load(tmp_path / "out" / "uniform.yaml") == compared["uniform"]
    rows = [line.split() for line in done.out.replace("front ", "front").splitlines()]
    header = next(row for row in rows if row[0] == "subnet")
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)}
    for name, subnet in compared.items():
        assert table[name]["loss"] == f"{losses[subnet.key]:.4f}"
        assert float(table[name]["params_without_embeddings"]) == params(subnet.to_dict())
    cheap = min(losses[compared[name].key] for name in ("uniform", "smallest"))
    assert ("which needs no search" in done.err) == (cheap <= results["best"]["loss"])
    assert results["budgets"] == {"params_without_embeddings": budget}
    assert f"budget: params_without_embeddings<={budget}, of which the best takes " in done.out
    # the same budget in parts of the largest subnet's
    part = 100 * budget / params(SearchSpace.from_dict(EVEN_SPACE).largest().to_dict())
    relative = ["--constraint", f"params_without_embeddings<={part:.12f}%", "--cache", tmp_path / "out" / "cache"]
    search(commands, joined, supernet, tmp_path / "relative", *relative)
    assert (tmp_path / "relative" / "best.yaml").read_text() == (tmp_path / "out" / "best.yaml").read_text()
    generated = commands.fork(
        "generate", *generation(joined, supernet[0] / "checkpoint_last.pt", "--subnet", tmp_path / "out" / "best.yaml")
    )
    assert len(generated.hypotheses()) == 12


def test_a_part_of_the_space(commands, joined, supernet, tmp_path):
    """All that is judged, the smallest and the largest lie in it; a search of all shares what it has judged."""
    kept = ["--choices", "encoder_embed_dim=24", "--choices", "decoder_arbitrary_ende_attn=-1"]
    kept += ["--choices", "decoder_layers=2,1", "--constraint", "params_without_embeddings<=99%"]
    known = SearchSpace.from_dict(EVEN_SPACE).largest()
    known.save(tmp_path / "known.yaml")
    given = [*kept, "--seeds-from", tmp_path / "known.yaml"]
    done = search(commands, joined, supernet, tmp_path / "out", *given)
    results = json.loads((tmp_path / "out" / "search.json").read_text())
    part = SearchSpace.from_dict(EVEN_SPACE | {"encoder_embed_dim": [24], "decoder_arbitrary_ende_attn": [-1]})
    (judged,) = (tmp_path / "out" / "cache").iterdir()
    found = [Subnet.from_dict(json.loads(row["key"])) for row in map(json.loads, judged.read_text().splitlines())]
    assert len(found) >= 30 and all(part.contains(subnet) for subnet in found)
    for name in ("smallest", "largest"):
        assert Subnet.from_dict(results["compared"][name]["architecture"]) == getattr(part, name)()
    assert results["budgets"]["params_without_embeddings"] == pytest.approx(0.99 * params(part.largest().to_dict()))
    assert results["choices"]["decoder_layers"] == [2, 1]
    assert "1 of 1 seeds miss a budget or --choices" in done.err
    few = ["--algorithm", "random", "--num-subnets", 3, "--seeds-from", tmp_path / "out" / "front.jsonl"]
    search(commands, joined, supernet, tmp_path / "all", *few, "--cache", tmp_path / "out" / "cache")
    keys = [json.loads(line)["key"] for line in judged.read_text().splitlines()]
    assert len(keys) == len(set(keys)) > len(found)  # the whole space's largest is new


def test_a_killed_search_goes_on_to_the_same_front(commands, joined, supernet, tmp_path):
    options = ["--algorithm", "nsga2", "--cost", "flops_without_output_projection"]
    search(commands, joined, supernet, tmp_path / "whole", *options)
    folder = tmp_path / "killed" / "cache"
    path = ["--path", supernet[0] / "checkpoint_last.pt", "--output", tmp_path / "killed", "--cache", folder]
    # so many generations that no stall of the machine lets it end before it is killed
    running = commands.start(
        "mos-search", joined, *path, *SMALL_FOR["nsga2"], *options, "--iterations", 1000, threads=1
    )

    def lines() -> int:
        return sum(file.read_bytes().count(b"\n") for file in folder.glob("*.jsonl"))

    until(lambda: lines() >= 7)
    assert running.kill().status == -signal.SIGKILL
    before = lines()
    search(commands, joined, supernet, tmp_path / "killed", *options)
    assert 7 <= before <= lines()
    for name in ("front.jsonl", "search.json", "best.yaml"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()
    front = [json.loads(line) for line in (tmp_path / "whole" / "front.jsonl").read_text().splitlines()]
    costs = [row["flops_without_output_projection"] for row in front]
    losses = [row["loss"] for row in front]
    assert costs == sorted(costs) and losses == sorted(losses, reverse=True)
    (cache,) = (tmp_path / "whole" / "cache").iterdir()
    judged = [json.loads(line) for line in cache.read_text().splitlines()]
    points = {row["key"]: (row["loss"], flops(json.loads(row["key"]))) for row in judged}
    best = {key for key, point in points.items() if not any(dominates(other, point) for other in points.values())}
    assert {Subnet.from_dict(row["architecture"]).key for row in front} == best


def test_searches_of_one_checkpoint_share_what_they_judged(commands, joined, supernet, tmp_path):
    """By default beside the checkpoint; other data or another set of sentences are judged apart."""
    path = ["--path", shutil.copy(supernet[0] / "checkpoint_last.pt", tmp_path)]
    for output in ("one", "two"):
        commands.fork("mos-search", joined, *path, *SMALL, "--output", tmp_path / output)
    (judged,) = (tmp_path / "subnet-evaluations").iterdir()
    results = json.loads((tmp_path / "two" / "search.json").read_text())
    keys = [json.loads(line)["key"] for line in judged.read_text().splitlines()]
    compared = {Subnet.from_dict(row["architecture"]).key for row in results["compared"].values()}
    assert len(keys) == len(set(keys)) == results["judged"] + len(compared - set(keys[: results["judged"]]))
    assert (tmp_path / "one" / "search.json").read_text() == (tmp_path / "two" / "search.json").read_text()
    commands.fork("mos-search", joined, *path, *SMALL, "--output", tmp_path / "few", "--valid-samples", 7)
    assert len(list((tmp_path / "subnet-evaluations").iterdir())) == 2


def test_the_bar_knows_the_total(commands, joined, supernet, tmp_path, budget):
    """Earlier judgements are on the bar from the start; a search with fewer than its maximum still ends in full."""

    def counts(*options: object) -> list[str]:
        return re.findall(r"(\d+/\d+) \[", search(commands, joined, supernet, tmp_path, *options).err)

    found = counts("--algorithm", "random", "--num-subnets", 5)
    # and the smallest and the largest, to compare with
    assert found[-1] == "7/7" and {count[1:] for count in found} == {"/7"}
    found = counts("--algorithm", "random", "--num-subnets", 8)  # the same draws, and three more
    assert (found[0], found[-1]) == ("5/10", "8/8")  # what it is compared with is known
    results = json.loads((tmp_path / "search.json").read_text())
    assert results["judged"] == 8
    found = counts("--algorithm", "nsga2", "--constraint", f"params_without_embeddings<={budget}")
    judged = json.loads((tmp_path / "search.json").read_text())["judged"]
    assert judged < 4 * 12  # children beyond the budget are not judged
    done, total = map(int, found[-1].split("/"))
    assert found[0].endswith("/78") and judged <= done == total <= judged + 30


def test_ctrl_c_is_one_line(commands, joined, supernet, tmp_path):
    path = ["--path", supernet[0] / "checkpoint_last.pt", "--output", tmp_path, "--cache", tmp_path / "cache"]
    # so many iterations that no stall of the machine lets it end before the signal
    running = commands.start("mos-search", joined, *path, *SMALL, "--workers", 2, "--iterations", 1000)
    until(lambda: any(file.stat().st_size for file in tmp_path.glob("cache/*.jsonl")))
    os.kill(running.pid, signal.SIGINT)
    done = running.wait()
    assert done.status == 130 and "Traceback" not in done.err
    assert done.err.splitlines()[-1] == "interrupted; the same command resumes"


def test_sentences_longer_than_the_model_takes_are_refused(joined, supernet, monkeypatch):
    monkeypatch.setattr("mos_fairseq.models.transformer_decoder.TransformerDecoder.max_positions", lambda self: 3)
    with pytest.raises(InputError, match="max_target_positions of .* is 3: valid holds a sentence of"):
        SubnetEvaluator(str(supernet[0] / "checkpoint_last.pt"), str(joined), EvaluationOptions())


def test_two_searches_at_once_share_what_they_judge(commands, joined, supernet, tmp_path):
    path = ["--path", supernet[0] / "checkpoint_last.pt", "--cache", tmp_path / "cache"]
    one, two = (["mos-search", joined, *path, *SMALL, "--output", tmp_path / name] for name in ("one", "two"))
    commands.python(AT_ONCE, 1, *one, "--", *two, cwd=tmp_path, threads=1, check=True, plugin=True)
    assert same(tmp_path / "one", tmp_path / "two")
    (judged,) = (tmp_path / "cache").iterdir()
    keys = [json.loads(line)["key"] for line in judged.read_text().splitlines()]
    judged = json.loads((tmp_path / "one" / "search.json").read_text())["judged"]
    assert judged <= len(keys) == len(set(keys)) <= judged + 2  # smallest and largest


FILES = ("front.jsonl", "search.json", "best.yaml", "front.html")


def same(one, other) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def test_a_loss_does_not_depend_on_what_was_judged_before(joined, supernet, use_kernels, monkeypatch):
    """oneDNN rounds in another way than torch's own library on some processors; here, by much."""
    multiply = onednn.multiply
    monkeypatch.setattr(onednn, "multiply", lambda *inputs: 1.01 * multiply(*inputs))
    use_kernels(packed_rows=1, packed_rows_of_small=1)
    checkpoint = str(supernet[0] / "checkpoint_last.pt")
    evaluator = SubnetEvaluator(checkpoint, str(joined), EvaluationOptions(max_tokens=60))
    assert len(evaluator.batches) > 1
    subnets = [evaluator.space.largest(), evaluator.space.smallest()]
    first = [evaluator.evaluate(subnet) for subnet in subnets]
    assert [evaluator.evaluate(subnet) for subnet in reversed(subnets)] == first[::-1]
    monkeypatch.setattr(onednn, "multiply", multiply)
    assert [evaluator.evaluate(subnet) for subnet in subnets] != first  # it did multiply


@pytest.fixture(scope="module")
def alone(commands, joined, supernet, tmp_path_factory) -> Path:
    """Results of a search in one process."""
    output = tmp_path_factory.mktemp("alone")
    search(commands, joined, supernet, output)
    return output


def same_judgements(one, other) -> bool:
    lines = [next((folder / "cache").iterdir()).read_text().splitlines() for folder in (one, other)]
    return sorted(lines[0]) == sorted(lines[1]) and len({json.loads(line)["key"] for line in lines[1]}) == len(lines[1])


def test_workers_come_to_the_same_front(commands, joined, supernet, alone, tmp_path):
    search(commands, joined, supernet, tmp_path, "--workers", 3)
    assert same(alone, tmp_path) and same_judgements(alone, tmp_path)


@pytest.mark.parametrize("algorithm", ["evolution", "nsga2"])
def test_torchruns_processes_come_to_the_same_front(commands, joined, supernet, alone, tmp_path, algorithm):
    """Two processes that know each other by the variables that torchrun sets, and by the store that it has."""
    if algorithm != "evolution":
        alone = tmp_path / "alone"
        search(commands, joined, supernet, alone, "--algorithm", algorithm)
    path = ["--path", supernet[0] / "checkpoint_last.pt", "--output", tmp_path / "2", "--cache", tmp_path / "2/cache"]
    options = [*SMALL_FOR[algorithm], "--algorithm", algorithm]
    commands.python(AT_ONCE, 2, "mos-search", joined, *path, *options, cwd=tmp_path, threads=1, check=True, plugin=True)
    assert same(alone, tmp_path / "2") and same_judgements(alone, tmp_path / "2")
    said = [(tmp_path / f"at_once.0.{rank}").read_text().count("best of ") for rank in (0, 1)]
    assert said == [1, 0]


def test_a_killed_worker_costs_nothing_but_time(commands, joined, supernet, alone, tmp_path):
    options = ["--workers", 2, "--cache", tmp_path / "cache2"]
    path = ["--path", supernet[0] / "checkpoint_last.pt", "--output", tmp_path / "2"]
    running = commands.start("mos-search", joined, *path, *SMALL, *options, threads=1)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")

    def workers() -> list[int]:
        found = [int(child) for child in children.read_text().split()]
        return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]

    for worker in until(workers):
        os.kill(worker, signal.SIGKILL)
    assert running.wait().status == 0
    assert same(alone, tmp_path / "2")


def test_the_front_is_measured(commands, files, joined, supernet, tmp_path):
    """Measure with the predictor's options into the same file; earlier measurements are not repeated."""
    latencies, predictor = tmp_path / "latency.jsonl", tmp_path / "predictor.json"
    words = len((joined / "dict.xx.txt").read_text().splitlines()) + 4
    small = ["--src-len", 4, "--tgt-len", 3, "--beam", 1, "--warmup", 0, "--iterations", 5]
    small += ["--vocab-size", words, "--share-all-embeddings"]
    space = ["--search-space", files / "space.yaml", "--num-subnets", 20]
    commands.fork("mos-latency", "measure", *space, *small, "--repeats", 2, "--output", latencies)
    commands.fork("mos-latency", "fit", latencies, "--output", predictor, "--folds", 2, "--held-out", 0)
    options = ["--predictor", predictor, "--measure-front", latencies, "--algorithm", "random", "--num-subnets", 4]
    done = search(commands, joined, supernet, tmp_path / "out", *options)
    results = json.loads((tmp_path / "out" / "search.json").read_text())
    lines = [json.loads(line) for line in latencies.read_text().splitlines()[1:]]
    counts = Counter(Subnet.from_dict(line["subnet"]).key for line in lines)
    fitted = json.loads(predictor.read_text())["measured"]
    read = read_latencies(latencies).at_speed_of(fitted)
    assert read.measured["reference_ms"] == fitted["reference_ms"]
    times = {subnet.key: ms for subnet, ms in zip(read.subnets, read.latency_ms, strict=True)}
    for row in (results["best"], *results["front"], *results["compared"].values()):
        key = Subnet.from_dict(row["architecture"]).key
        assert row["measured_latency_ms"] == times[key] and counts.pop(key, REPEATS) == REPEATS
    assert set(counts.values()) == {2}
    (line,) = [line for line in done.out.splitlines() if line.startswith("best  ")]
    assert f" {results['best']['measured_latency_ms']:.6g} " in line
    search(commands, joined, supernet, tmp_path / "again", *options)
    assert len(latencies.read_text().splitlines()) == len(lines) + 1
    # that of another machine does not correct this one's latencies
    content = json.loads(predictor.read_text())
    machine = content["measured"]["machine"] | {"processor": "another"}
    elsewhere = content["measured"] | {"machine": machine, "reference_ms": 1e6}
    predictor.write_text(json.dumps(content | {"measured": elsewhere}))
    done = search(commands, joined, supernet, tmp_path / "elsewhere", *options)
    assert "predicted ones of the predictor's (another): they do not compare" in done.err
    assert json.loads((tmp_path / "elsewhere" / "search.json").read_text())["best"]["measured_latency_ms"] < 1e3
    # a predictor that does not fit is reported before the search
    for part, key, value in [
        ("options", "vocab_size", words + 1),
        ("options", "share_all_embeddings", False),
        ("options", "layernorm_embedding", True),
        ("machine", "threads", 64),
    ]:
        measured = content["measured"] | {part: content["measured"][part] | {key: value}}
        predictor.write_text(json.dumps(content | {"measured": measured}))
        latencies.write_text(latencies.read_text().replace('"cores":', '"cores":9'))
        error = search(commands, joined, supernet, tmp_path / "other", *options, check=False).error()
        assert (f"measured with {key}={value}, the supernet has" if part == "options" else "machine cores=") in error
        assert not (tmp_path / "other" / "search.json").exists()


def test_the_front_is_measured_with_the_predictors_threads():
    """If measure had no number of threads, torch chose it; since then, a search's workers have divided the cores."""
    before, asked = torch.get_num_threads(), SimpleNamespace(predictor="p.json")
    options = {"vocab_size": 20, "threads": None, "device": "cpu"}
    predictor = SimpleNamespace(measured={"options": options, "machine": {"threads": before + 1}})
    found, threads = latency_options(asked, predictor)
    assert found.threads is None and threads == before + 1 and torch.get_num_threads() == before
    options = {"vocab_size": 20, "threads": 3, "device": "cpu"}
    predictor = SimpleNamespace(measured={"options": options, "machine": {"threads": 3}})
    assert latency_options(asked, predictor)[1] is None
    with pytest.raises(InputError, match="p.json: it does not say how"):
        latency_options(asked, SimpleNamespace(measured={}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", 0], "workers is 0"),
        (["--algorithm", "nsga2", "--seed", -1], "seed is -1"),
        (["--algorithm", "random", "--seed", -1], "seed is -1"),
        (["--device", "quantum"], "device is quantum"),
        (["--measure-front", "latency.jsonl"], "measure_front needs a predictor"),
        (["--constraint", "params<=1"], "no subnet keeps it, the smallest reachable is params"),
        (
            ["--constraint", "params<=40%", "--choices", "encoder_embed_dim=24"],
            "no subnet with --choices encoder_embed_dim=24 keeps it",
        ),
        (["--constraint", "latency_ms<=1"], "latency_ms needs a predictor"),
        (["--constraint", "speed<=1"], "speed is not known"),
        (["--choices", "encoder_layers"], "choices 'encoder_layers': allowed is KEY=N[,N]"),
        (["--choices", "encoder_layers=2", "--choices", "encoder_layers=1"], "encoder_layers is given twice"),
        (["--choices", "encoder_layers=9"], "choices: encoder_layers=9 is not in the search space; choices: "),
        (["--choices", "heads=2"], "choices: 'heads' is not an elastic dimension of this space"),
        (["--beam", 2], "beam is 2, but objective is loss"),
        (["--remove-bpe", "sentencepiece"], "remove_bpe is sentencepiece, but objective is loss"),
        (["--objective", "chrf", "--sacrebleu-tokenizer", "zh"], "sacrebleu_tokenizer is zh: it belongs to bleu"),
        (["--parents", 13], "parents is 13"),
        (["--valid-samples", 0], "valid_samples is 0"),
        (["--valid-subset", "absent"], "absent"),
        (["--max-tokens", 3], "max_tokens is 3: the longest sentence has"),
    ],
)
def test_bad_input(commands, joined, supernet, tmp_path, options, message):
    assert message in search(commands, joined, supernet, tmp_path / "out", *options, check=False).error()
    assert not (tmp_path / "out" / "search.json").exists()


def test_other_checkpoints_are_refused(commands, joined, supernet, tmp_path):
    export = ["--path", supernet[0] / "checkpoint_last.pt", "--subnet", "smallest", "--output", tmp_path / "twin.pt"]
    written = json.loads(commands.fork("mos-export", *export, "--json").out)
    smallest = SearchSpace.from_dict(EVEN_SPACE).smallest()
    assert (written["output"], written["architecture"]) == (str(tmp_path / "twin.pt"), smallest.to_dict())
    (tmp_path / "notes.pt").write_text("notes")
    wanted = {"twin.pt": "its arch is transformer_subnet", "notes.pt": "notes.pt", "no.pt": "no such file"}
    for name, message in wanted.items():
        path = ["--path", tmp_path / name, "--output", tmp_path / "out"]
        assert message in commands.fork("mos-search", joined, *path, check=False).error()
    assert not (tmp_path / "out").exists()
