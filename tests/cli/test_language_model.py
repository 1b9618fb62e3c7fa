"""Language models through fairseq's commands: one trained supernet, and its uses."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest
import torch
import yaml
from fairseq import checkpoint_utils

import mos_fairseq  # noqa: F401  makes checkpoints readable
from mos_fairseq.cost import CostOptions, subnet_cost
from mos_fairseq.evaluation import EvaluationOptions, SubnetEvaluator
from mos_fairseq.latency import LatencyPredictor
from mos_fairseq.search_space import SearchSpace, Subnet, resolve_subnet
from tests.seeds import moved
from tests.spaces import LM_SPACE

from .conftest import USER_DIR, spec
from .test_bad_input import check
from .test_train import best_updates, resumed_and_uninterrupted, updates_of

PLUGIN = ["--user-dir", USER_DIR, "--task", "language_modeling_mos"]
SENTENCES = ["--sample-break-mode", "eos", "--tokens-per-sample", 16]
LOG = ["--log-format", "json", "--log-interval", 1, "--no-progress-bar", "--num-workers", 0]
DEPTH_FROM = 7  # updates; from then on the depth is elastic
NAMES = ("smallest", "largest", "random7", "middle")


@pytest.fixture(scope="module")
def monolingual(commands, tmp_path_factory) -> Path:
    """Binarised sentences: each word is followed by one of two."""
    text = tmp_path_factory.mktemp("monolingual")
    draw, words = random.Random(6), "abcdefgh"
    for split, count in (("train", 90), ("valid", 13), ("test", 11)):
        lines = []
        for _ in range(count):
            line = [draw.randrange(8)]
            while len(line) < 3 or draw.random() < 0.7 and len(line) < 9:
                line.append((2 * line[-1] + draw.randrange(2)) % 8)
            lines.append(" ".join(words[word] for word in line))
        (text / split).write_text("\n".join(lines) + "\n")
    paths = [x for split in ("train", "valid", "test") for x in (f"--{split}pref", text / split)]
    commands.fork("preprocess", "--only-source", *paths, "--destdir", text / "bin")
    return text / "bin"


@pytest.fixture(scope="module")
def spaces(tmp_path_factory) -> Path:
    """space.yaml, and middle.yaml, a subnet that is neither largest nor smallest."""
    folder = tmp_path_factory.mktemp("spaces")
    (folder / "space.yaml").write_text(yaml.safe_dump(LM_SPACE))
    middle = {"decoder_embed_dim": 28, "decoder_layers": 2, "decoder_ffn_embed_dim": [19, 37]}
    middle |= {"family": "decoder_only", "decoder_attention_heads": [2, 4]}
    (folder / "middle.yaml").write_text(yaml.safe_dump(middle))
    return folder


def training(data: Path, space: Path | str, save_dir: Path, *options: object) -> list[object]:
    """Arguments of a small training by sandwich; later options win."""
    model = ["--arch", "transformer_lm_mos", "--share-decoder-input-output-embed", "--search-space", space]
    model += ["--subnet-sampling", "sandwich"]
    loss = ["--criterion", "label_smoothed_cross_entropy_mos", "--label-smoothing", 0.1]
    optimizer = ["--optimizer", "adam", "--lr", 0.01, "--clip-norm", 1.0, "--max-tokens", 110, "--max-update", 5]
    optimizer += ["--seed", moved(1)]
    return [data, *PLUGIN, *model, *SENTENCES, *loss, *optimizer, *LOG, "--save-dir", save_dir, *options]


@pytest.fixture(scope="module")
def trained(commands, monolingual, spaces, tmp_path_factory):
    """(save dir, log) of a supernet that has learnt a little."""
    save_dir = tmp_path_factory.mktemp("language_model") / "checkpoints"
    subnets = ["--valid-subnets", f"smallest,largest,random:7,{spaces / 'middle.yaml'}", "--report-accuracy"]
    options = [*subnets, "--best-checkpoint-metric", "loss_smallest", "--elastic-from", f"decoder_layers:{DEPTH_FROM}"]
    arguments = training(monolingual, spaces / "space.yaml", save_dir, *options, "--max-update", 42)
    return save_dir, commands.fork("train", *arguments)


@pytest.fixture(scope="module")
def model(trained):
    """The trained supernet, in this process."""
    path = str(trained[0] / "checkpoint_last.pt")
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([path])
    return models[0].eval(), task


# --- training ---


def test_what_is_logged(trained):
    _, done = trained
    first, last = done.rows("train_inner")[0], done.rows("train_inner")[-1]
    for name in ("largest", "random", "smallest"):
        assert float(last[f"nll_loss_{name}"]) < float(first[f"nll_loss_{name}"]) - 0.3
    row = done.rows("valid")[-1]
    kinds = ("loss", "nll_loss", "ppl", "accuracy")
    assert {f"valid_{kind}{of}" for kind in kinds for of in ("", *(f"_{name}" for name in NAMES))} <= row.keys()
    assert len({row[f"valid_nll_loss_{name}"] for name in NAMES}) == 4


def test_the_best_checkpoint_is_the_smallest_subnets(trained):
    save_dir, done = trained
    assert updates_of(save_dir / "checkpoint_best.pt") in best_updates(done, "loss_smallest")


def test_depths_become_elastic(trained):
    space = SearchSpace.from_dict(LM_SPACE)
    drawn = re.findall(r"update (\d+) trains largest; random: (.*); smallest", trained[1].out)
    assert [int(number) for number, _ in drawn] == list(range(1, 43))
    depths = [int(re.match(r"dec (\d)x", text)[1]) for _, text in drawn]
    assert set(depths[:DEPTH_FROM]) == {3} and set(depths[DEPTH_FROM:]) == {1, 2, 3}
    for number, text in drawn[DEPTH_FROM:]:
        assert text == space.sample_subnet("train", moved(1), int(number) - 1, 0).summary()


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_one(commands, monolingual, spaces, tmp_path):
    """Killed after a checkpoint in mid-epoch (an epoch has 6 updates), with dropout everywhere."""
    rates = ["--dropout", 0.3, "--attention-dropout", 0.1, "--activation-dropout", 0.1, "--router-dropout", 0.2]
    often = ["--save-interval-updates", 4, "--lr-scheduler", "inverse_sqrt", "--warmup-updates", 5]
    often += ["--disable-validation"]

    def run(folder, updates):
        options = [*rates, *often, "--max-update", updates]
        return training(monolingual, spaces / "space.yaml", tmp_path / folder, *options)

    resumed_and_uninterrupted(commands, run, tmp_path, 11)


@pytest.mark.slow
def test_distillation(commands, monolingual, spaces, tmp_path):
    options = ["--criterion", "distillation_mos", "--distillation", "alpha", "--hidden-weight", 0.1]
    more = ["--mos-routing", "layer", "--sample-break-mode", "none", "--max-update", 20]
    arguments = training(monolingual, spaces / "space.yaml", tmp_path, *options, *more)
    done = commands.fork("train", *arguments)
    rows = done.rows("train_inner")
    for kind in ("distillation_loss", "hidden_loss"):
        assert f"{kind}_smallest" in rows[0] and f"{kind}_random" in rows[0] and f"{kind}_largest" not in rows[0]
    for name in ("largest", "smallest"):
        assert float(rows[-1][f"nll_loss_{name}"]) < float(rows[0][f"nll_loss_{name}"]) - 0.2


# --- the trained supernet ---


@pytest.mark.parametrize("name", NAMES)
def test_eval_lm_finds_what_validation_found(commands, monolingual, spaces, trained, name):
    save_dir, done = trained
    options = ["--subnet", spec(name, spaces), "--gen-subset", "valid", "--max-tokens", 60]
    path = ["--path", save_dir / "checkpoint_last.pt"]
    found = commands.fork("eval_lm", monolingual, *PLUGIN, *SENTENCES, *path, *options)
    loss = re.search(r"Loss \(base 2\): ([\d.]+)", found.out + found.err)[1]
    assert float(loss) == pytest.approx(float(done.rows("valid")[-1][f"valid_nll_loss_{name}"]), abs=0.002)


def test_validate(commands, monolingual, trained):
    save_dir, done = trained
    arguments = [monolingual, *PLUGIN, "--path", save_dir / "checkpoint_last.pt", "--max-tokens", 60, *LOG]
    row = commands.fork("validate", *arguments, "--valid-subnets", "random:7,smallest,random:9").rows("valid")[-1]
    last = done.rows("valid")[-1]
    for key in ("valid_loss_random7", "valid_nll_loss_smallest", "valid_accuracy_smallest"):
        assert float(row[key]) == pytest.approx(float(last[key]), abs=0.002), key
    assert "valid_loss_random9" in row and "valid_loss_largest" not in row
    row = commands.fork("validate", *arguments, "--subnet", "largest").rows("valid")[-1]
    assert float(row["valid_loss"]) == pytest.approx(float(last["valid_loss_largest"]), abs=0.002)


@torch.no_grad()
def continued(model, task, subnet: str, prefix: torch.Tensor) -> tuple[float, str]:
    """Score in bits a token and words that the subnet's static twin writes, the most probable word each time.

    At most 10 words, without caches.
    """
    supernet, words = model, task.target_dictionary
    supernet.set_active_subnet(resolve_subnet(subnet, supernet.search_space))
    twin, tokens, total = supernet.get_active_subnet(), [words.eos()], 0.0
    while len(tokens) == 1 or tokens[-1] != words.eos():
        lprobs = torch.log_softmax(twin(torch.tensor([tokens]))[0][0, -1].float(), -1)
        if len(tokens) <= len(prefix):
            word = int(prefix[len(tokens) - 1])
        elif len(tokens) > 10:
            word = words.eos()
        else:
            lprobs[words.pad()] = -math.inf
            word = int(lprobs.argmax())
        tokens.append(word)
        total += float(lprobs[word])
    return total / (len(tokens) - 1) / math.log(2), words.string(tokens[1:])


def check_generated(found: dict[int, list[str]], expected: list[tuple[float, str]]) -> None:
    """Of two words that are as probable, rounding chooses: in one sentence at most."""
    assert sorted(found) == list(range(len(expected)))
    pairs = [(found[number], line) for number, line in enumerate(expected)]
    assert [float(score) for (score, _), _ in pairs] == pytest.approx([score for _, (score, _) in pairs], abs=1e-3)
    assert sum(text != words for (_, text), (_, words) in pairs) <= 1


@pytest.mark.parametrize("name", ["largest", "smallest", "middle"])
def test_generate_goes_on_from_a_prefix(commands, monolingual, spaces, trained, model, name):
    options = ["--subnet", spec(name, spaces), "--prefix-size", 2, "--beam", 1, "--max-len-b", 10, *SENTENCES]
    path = ["--path", trained[0] / "checkpoint_last.pt", "--max-tokens", 60, "--num-workers", 0]
    done = commands.fork("generate", monolingual, *PLUGIN, *path, *options)
    _, task = model
    task.load_dataset("test")
    sentences = [task.dataset("test")[index]["target"] for index in range(len(task.dataset("test")))]
    check_generated(done.found("H"), [continued(*model, spec(name, spaces), tokens[:2]) for tokens in sentences])


def test_interactive_goes_on_from_what_it_reads(commands, monolingual, trained, model):
    lines = ["a c", "h", "b d g"]
    options = ["--subnet", "smallest", "--beam", 1, "--max-len-b", 10, "--path", trained[0] / "checkpoint_last.pt"]
    done = commands.fork("interactive", monolingual, *PLUGIN, *options, stdin="\n".join(lines) + "\n")
    _, task = model
    tokens = [task.source_dictionary.encode_line(line, append_eos=False, add_if_not_exist=False) for line in lines]
    check_generated(done.found("H"), [continued(*model, "smallest", prefix) for prefix in tokens])


# --- search ---


def test_search_by_loss_within_a_size(commands, monolingual, trained, model, tmp_path):
    """The winner is the best of all subnets that keep the budget, each judged once; its loss is fairseq-eval-lm's."""
    checkpoint = trained[0] / "checkpoint_last.pt"
    space = SearchSpace.from_dict(LM_SPACE | {"decoder_layers": [1]})
    options = CostOptions(vocab_size=len(model[1].target_dictionary), share_decoder_input_output_embed=True)
    words = ["--path", checkpoint, "--algorithm", "random", "--num-subnets", 600, "--output", tmp_path / "search"]
    budget = subnet_cost(space.largest(), options).params
    commands.fork("mos-search", monolingual, *words, "--constraint", f"params<={budget}", "--valid-subset", "test")
    found = json.loads((tmp_path / "search" / "search.json").read_text())
    best = found["best"]
    architecture = Subnet.from_dict(best["architecture"])
    assert best["params"] == subnet_cost(architecture, options).params <= budget
    evaluator = SubnetEvaluator(str(checkpoint), str(monolingual), EvaluationOptions(valid_subset="test"))
    assert best["loss"] == pytest.approx(evaluator.evaluate(architecture), abs=1e-5)
    assert best["loss"] <= min(evaluator.evaluate(subnet) for subnet in space.iterate()) + 1e-5
    judged = ["--path", checkpoint, "--subnet", tmp_path / "search" / "best.yaml", "--gen-subset", "test", *SENTENCES]
    done = commands.fork("eval_lm", monolingual, *PLUGIN, *judged)
    printed = re.search(r"Loss \(base 2\): ([\d.]+)", done.out + done.err)
    assert float(printed[1]) == pytest.approx(best["loss"], abs=1e-3)


def test_latency_of_token_by_token_generation(commands, monolingual, spaces, trained, model, tmp_path):
    """Measured, fitted, and a constraint of a search."""
    sizes = ["--vocab-size", len(model[1].target_dictionary), "--share-decoder-input-output-embed"]
    sizes += ["--tgt-len", 3, "--beam", 1, "--repeats", 1]
    words = ["--search-space", spaces / "space.yaml", "--num-subnets", 26, "--output", tmp_path / "latency.jsonl"]
    commands.fork("mos-latency", "measure", *words, *sizes)
    header = json.loads((tmp_path / "latency.jsonl").read_text().split("\n")[0])
    assert header["options"]["workload"] == "generate" and header["search_space"]["family"] == "decoder_only"
    predictor = tmp_path / "predictor.json"
    commands.fork("mos-latency", "fit", tmp_path / "latency.jsonl", "--output", predictor, "--folds", 3)
    limit = LatencyPredictor.load(predictor).predict([SearchSpace.from_dict(LM_SPACE).smallest()])[0] * 1.001
    search = ["--path", trained[0] / "checkpoint_last.pt", "--predictor", predictor, "--output", tmp_path / "search"]
    search += ["--constraint", f"latency_ms<={limit:.9f}", "--algorithm", "random", "--num-subnets", 3]
    commands.fork("mos-search", monolingual, *search)
    assert json.loads((tmp_path / "search" / "search.json").read_text())["best"]["latency_ms"] <= limit


def test_diagnosis(commands, monolingual, trained, tmp_path):
    words = ["--path", trained[0] / "checkpoint_last.pt", "--output", tmp_path / "diagnosis"]
    done = commands.fork("mos-diagnose", monolingual, *words)
    assert all(f"decoder {number} ffn" in done.out for number in (1, 2, 3))


# --- mistakes ---


def test_what_is_for_translation_only(commands, monolingual, trained, tmp_path):
    path = ["--path", trained[0] / "checkpoint_last.pt", "--output", tmp_path / "none"]
    done = commands.fork("mos-search", monolingual, *path, "--objective", "bleu", check=False)
    assert done.error() == "objective is bleu: models of family decoder_only are judged by loss"
    done = commands.fork("mos-gap", "measure", monolingual, *path, "--subnet", "largest", check=False)
    assert done.error() == "mos-gap measure: for encoder_decoder, encoder_only, supernet is decoder_only"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--search-space", "tiny"], ["family encoder_decoder", "transformer_lm_mos takes decoder_only"]),
        (["--subnet", "smallest"], ["subnet is smallest", "subnet_sampling sandwich", "fixed"]),
        (["--self-target"], ["self_target is True", "not offered for supernets"]),
        (["--best-checkpoint-metric", "bleu"], ["best_checkpoint_metric is bleu", "(see --valid-subnets; accuracy"]),
    ],
)
def test_bad_training(commands, monolingual, spaces, tmp_path, options, words):
    arguments = training(monolingual, spaces / "space.yaml", tmp_path / "save", *options)
    check(commands.fork("train", *arguments, check=False), tmp_path / "save", words)


def test_a_space_of_language_models_under_the_translation_task(commands, joined, tmp_path):
    arguments = ["--user-dir", USER_DIR, "--task", "translation_mos", "--arch", "transformer_mos", "--lr", 1]
    arguments += ["--search-space", "tiny_lm", "--max-tokens", 99, "--optimizer", "adam", "--save-dir", tmp_path]
    done = commands.fork("train", joined, *arguments, check=False)
    check(done, tmp_path, ["family decoder_only", "transformer_mos takes encoder_decoder"])


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("eval_lm", ["--valid-subnets", "largest"], ["valid_subnets is largest", "no effect in fairseq-eval-lm"]),
        ("eval_lm", ["--subnet", "tiny"], ["subnet", "tiny"]),
        ("generate", ["--subnet-sampling", "random"], ["subnet_sampling is random", "only in fairseq-train"]),
    ],
)
def test_options_without_effect(commands, monolingual, trained, tmp_path, command, options, words):
    path = ["--path", trained[0] / "checkpoint_last.pt", *SENTENCES]
    check(commands.fork(command, monolingual, *PLUGIN, *path, *options, check=False), tmp_path / "none", words)
