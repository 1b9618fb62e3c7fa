"""Masked language models through fairseq's commands: one trained supernet, and its uses."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import torch
import yaml
from fairseq import checkpoint_utils

import mos_fairseq  # noqa: F401  makes checkpoints readable
from mos_fairseq.cli import export
from mos_fairseq.cost import CostOptions, subnet_cost
from mos_fairseq.evaluation import EvaluationOptions, SubnetEvaluator
from mos_fairseq.latency import LatencyPredictor
from mos_fairseq.models import RobertaMosModel, RobertaSubnetModel
from mos_fairseq.search_space import SearchSpace, Subnet
from tests.seeds import moved
from tests.spaces import BERT_SPACE, BOTTLENECK_SPACE

from .conftest import USER_DIR
from .test_bad_input import check
from .test_train import best_updates, resumed_and_uninterrupted, updates_of

PLUGIN = ["--user-dir", USER_DIR]
BLOCKS = ["--sample-break-mode", "eos", "--tokens-per-sample", 16, "--mask-prob", 0.3]
LOG = ["--log-format", "json", "--log-interval", 1, "--no-progress-bar", "--num-workers", 0]
NAMES = ("smallest", "largest", "random7", "middle")
MIDDLE = {
    "family": "encoder_only",
    "encoder_embed_dim": 18,
    "encoder_layers": 2,
    "encoder_ffn_embed_dim": [19, 37],
    "encoder_attention_heads": [2, 4],
    "head_dim": 6,
}
HEAD = "sentence_classification_head"


def chain(draw: random.Random, words: str) -> list[str]:
    """Return words, each determined by the one before."""
    start, length = draw.randrange(4), draw.randrange(4, 12)
    return [words[(start + place) % 4] for place in range(length)]


@pytest.fixture(scope="module")
def text(commands, tmp_path_factory) -> Path:
    """Binarised sentences in ``bin``, and the same in ``labelled`` with a label that depends on their words."""
    folder = tmp_path_factory.mktemp("masked")
    draw = random.Random(6)
    for split, count in (("train", 90), ("valid", 23), ("test", 21)):
        kinds = [draw.choice(("abcd", "efgh")) for _ in range(count)]
        (folder / f"{split}.text").write_text("".join(" ".join(chain(draw, kind)) + "\n" for kind in kinds))
        (folder / f"{split}.label").write_text("".join(f"{kind}\n" for kind in kinds))

    def preprocess(kind: str, destination: Path, *options: object) -> None:
        paths = [x for split in ("train", "valid", "test") for x in (f"--{split}pref", folder / f"{split}.{kind}")]
        commands.fork("preprocess", "--only-source", *paths, "--destdir", destination, *options)

    preprocess("text", folder / "bin")
    preprocess("text", folder / "labelled" / "input0", "--srcdict", folder / "bin" / "dict.txt")
    preprocess("label", folder / "labelled" / "label", "--padding-factor", 1)
    return folder


@pytest.fixture(scope="module")
def spaces(tmp_path_factory) -> Path:
    """Spaces; and middle.yaml, a subnet of the uniform one that is neither largest nor smallest."""
    folder = tmp_path_factory.mktemp("spaces")
    (folder / "space.yaml").write_text(yaml.safe_dump(BERT_SPACE))
    (folder / "bottleneck.yaml").write_text(yaml.safe_dump(BOTTLENECK_SPACE))
    (folder / "middle.yaml").write_text(yaml.safe_dump(MIDDLE))
    return folder


def training(data: Path, save_dir: Path, *options: object, space: Path | str | None = None) -> list[object]:
    """Arguments of a small training by sandwich; later options win. Without a ``space`` by fairseq's own task."""
    ours = ["--task", "masked_lm_mos", "--arch", "roberta_mos", "--search-space", space]
    task = [*ours, "--subnet-sampling", "sandwich"] if space else ["--task", "masked_lm"]
    loss = ["--criterion", "masked_lm", "--dropout", 0.0, "--attention-dropout", 0.0]
    optimizer = ["--optimizer", "adam", "--lr", 0.01, "--clip-norm", 1.0, "--max-tokens", 110, "--max-update", 5]
    optimizer += ["--seed", moved(1)]
    return [data, *PLUGIN, *task, *BLOCKS, *loss, *optimizer, *LOG, "--save-dir", save_dir, *options]


@pytest.fixture(scope="module")
def trained(commands, text, spaces, tmp_path_factory):
    """(save dir, log) of a supernet that has learnt a little."""
    save_dir = tmp_path_factory.mktemp("masked_language_model") / "checkpoints"
    subnets = ["--valid-subnets", f"smallest,largest,random:7,{spaces / 'middle.yaml'}"]
    options = [*subnets, "--best-checkpoint-metric", "loss_smallest", "--max-update", 60]
    arguments = training(text / "bin", save_dir, *options, space=spaces / "space.yaml")
    return save_dir, commands.fork("train", *arguments)


# --- training ---


def test_what_is_logged(trained):
    _, done = trained
    first, last = done.rows("train_inner")[0], done.rows("train_inner")[-1]
    for name in ("largest", "random", "smallest"):
        assert float(last[f"loss_{name}"]) < float(first[f"loss_{name}"]) - 0.3
    row = done.rows("valid")[-1]
    assert {f"valid_{kind}{of}" for kind in ("loss", "ppl") for of in ("", *(f"_{n}" for n in NAMES))} <= row.keys()
    assert len({row[f"valid_loss_{name}"] for name in NAMES}) == 4


def test_the_best_checkpoint_is_the_smallest_subnets(trained):
    save_dir, done = trained
    assert updates_of(save_dir / "checkpoint_best.pt") in best_updates(done, "loss_smallest")


def test_the_largest_subnet_trains_as_stock_roberta(commands, text, spaces, tmp_path):
    """50 updates from the same weights have the losses of fairseq-train --arch roberta (test (d))."""
    sizes = ["--encoder-embed-dim", 24, "--encoder-layers", 3, "--encoder-ffn-embed-dim", 37]
    sizes += ["--encoder-attention-heads", 4, "--arch", "roberta", "--max-positions", 16]
    commands.fork("train", *training(text / "bin", tmp_path / "start", *sizes, "--max-update", 1, "--lr", 0.0))
    start = tmp_path / "start" / "checkpoint_last.pt"
    more = ["--max-update", 50, "--disable-validation", "--finetune-from-model"]
    stock = commands.fork("train", *training(text / "bin", tmp_path / "stock", *sizes, *more, start))
    warm = ["--path", start, "--search-space", spaces / "space.yaml", "--mos-routing", "none", "--no-reorder"]
    done = commands.fork("mos-warm-start", *warm, "--output", tmp_path / "warm.pt")
    assert "fairseq-train … --task masked_lm_mos" in done.out and "--max-positions 16" in done.out
    largest = ["--subnet-sampling", "largest", "--mos-routing", "none"]
    options = [*largest, *more, tmp_path / "warm.pt"]
    arguments = training(text / "bin", tmp_path / "ours", *options, space=spaces / "space.yaml")
    ours = commands.fork("train", *arguments)
    expected, found = ([float(row["loss"]) for row in done.rows("train_inner")] for done in (stock, ours))
    assert len(expected) == 50 and expected[-1] < expected[0]
    assert found == pytest.approx(expected, abs=0.002)


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_one(commands, text, spaces, tmp_path):
    """Killed after a checkpoint in the middle of the second epoch, which masks other words than the first."""
    rates = ["--dropout", 0.3, "--attention-dropout", 0.1, "--activation-dropout", 0.1, "--router-dropout", 0.2]
    often = ["--save-interval-updates", 4, "--disable-validation", "--max-tokens", 420]  # an epoch has 3 updates
    often += ["--num-workers", 1]  # which has its own copy of the set, and of the epoch

    def run(folder, updates):
        options = [*rates, *often, "--max-update", updates]
        return training(text / "bin", tmp_path / folder, *options, space=spaces / "bottleneck.yaml")

    resumed_and_uninterrupted(commands, run, tmp_path, 11, name="checkpoint_2_4.pt")


@pytest.mark.slow
@pytest.mark.parametrize("space", ["space.yaml", "bottleneck.yaml"])
def test_distillation(commands, text, spaces, tmp_path, space):
    options = ["--criterion", "distillation_mos", "--distillation", "alpha", "--hidden-weight", 0.1]
    more = ["--mos-routing", "layer", "--max-update", 25, "--report-accuracy"]
    arguments = training(text / "bin", tmp_path, *options, *more, space=spaces / space)
    done = commands.fork("train", *arguments)
    rows = done.rows("train_inner")
    for kind in ("distillation_loss", "hidden_loss"):
        assert f"{kind}_smallest" in rows[0] and f"{kind}_random" in rows[0] and f"{kind}_largest" not in rows[0]
    for name in ("largest", "smallest"):
        assert float(rows[-1][f"nll_loss_{name}"]) < float(rows[0][f"nll_loss_{name}"]) - 0.2


def test_a_trained_model_teaches(commands, text, spaces, trained, tmp_path):
    options = ["--criterion", "distillation_mos", "--teacher", trained[0] / "checkpoint_last.pt", "--max-update", 3]
    done = commands.fork("train", *training(text / "bin", tmp_path, *options, space=spaces / "bottleneck.yaml"))
    assert {"distillation_loss_largest", "distillation_loss_smallest"} <= done.rows("train_inner")[-1].keys()


# --- the trained supernet ---


def test_validate(commands, text, trained):
    """The same words are masked for every judged model, in any order."""
    save_dir, done = trained
    arguments = [text / "bin", *PLUGIN, "--task", "masked_lm_mos", "--path", save_dir / "checkpoint_last.pt", *LOG]
    arguments += ["--max-tokens", 60]
    row = commands.fork("validate", *arguments, "--valid-subnets", "random:7,smallest,random:9").rows("valid")[-1]
    last = done.rows("valid")[-1]
    for key in ("valid_loss_random7", "valid_loss_smallest", "valid_ppl_smallest"):
        assert float(row[key]) == pytest.approx(float(last[key]), rel=0.002, abs=0.002), key
    assert "valid_loss_random9" in row and "valid_loss_largest" not in row
    row = commands.fork("validate", *arguments, "--subnet", "largest").rows("valid")[-1]
    assert float(row["valid_loss"]) == pytest.approx(float(last["valid_loss_largest"]), abs=0.002)


def test_the_evaluator_finds_what_validation_found(text, trained):
    """Per masked token, not as a mean of batches' means; bit-equal after any earlier judgement."""
    path, last = str(trained[0] / "checkpoint_last.pt"), trained[1].rows("valid")[-1]
    evaluator = SubnetEvaluator(path, str(text / "bin"), EvaluationOptions(max_tokens=70))
    largest, smallest = evaluator.space.largest(), evaluator.space.smallest()
    losses = [evaluator.evaluate(subnet) for subnet in (largest, smallest, largest)]
    assert losses[0] == losses[2]
    expected = [float(last[f"valid_loss_{name}"]) for name in ("largest", "smallest")]
    assert losses[:2] == pytest.approx(expected, abs=0.001)


# --- fine-tuning ---


def finetuning(labelled: Path, save_dir: Path, *options: object) -> list[object]:
    task = ["--task", "sentence_prediction", "--num-classes", 2, "--init-token", 0, "--separator-token", 2]
    task += ["--max-positions", 16, "--criterion", "sentence_prediction", "--batch-size", 8, "--dropout", 0.0]
    optimizer = ["--optimizer", "adam", "--lr", 0.005, "--max-epoch", 6, "--seed", moved(1)]
    optimizer += ["--valid-subset", "valid,test"]
    best = ["--best-checkpoint-metric", "accuracy", "--maximize-best-checkpoint-metric", "--no-epoch-checkpoints"]
    return [labelled, *PLUGIN, *task, *optimizer, *best, *LOG, "--save-dir", save_dir, *options]


@pytest.fixture(scope="module")
def exported(commands, trained, spaces, tmp_path_factory) -> Path:
    """The middle subnet's twin."""
    path = tmp_path_factory.mktemp("exported") / "twin.pt"
    subnet = ["--subnet", spaces / "middle.yaml", "--output", path]
    commands.fork("mos-export", "--path", trained[0] / "checkpoint_last.pt", *subnet)
    return path


@pytest.fixture(scope="module")
def finetuned(commands, text, exported, spaces, tmp_path_factory):
    """(save dir, log) of the exported subnet as a classifier, made by fairseq's own task."""
    save_dir = tmp_path_factory.mktemp("finetuned")
    model = ["--arch", "roberta_subnet", "--subnet", spaces / "middle.yaml", "--finetune-from-model", exported]
    return save_dir, commands.fork("train", *finetuning(text / "labelled", save_dir, *model))


def accuracy(done, split: str = "test") -> float:
    return max(float(row[f"{split}_accuracy"]) for row in done.rows(split))


def test_an_exported_subnet_is_fine_tuned_by_stock_sentence_prediction(finetuned):
    assert accuracy(finetuned[1]) > 80


def test_a_subnet_is_fine_tuned_inside_the_supernet(commands, text, trained, spaces, tmp_path):
    """Fine-tuning by fairseq's own task: unused weights stay unchanged, and the checkpoint has the subnet."""
    checkpoint = trained[0] / "checkpoint_last.pt"
    model = ["--arch", "roberta_mos", "--search-space", spaces / "space.yaml", "--subnet", spaces / "middle.yaml"]
    start = ["--restore-file", checkpoint, "--reset-optimizer", "--reset-dataloader", "--reset-meters"]
    start += ["--reset-lr-scheduler"]
    done = commands.fork("train", *finetuning(text / "labelled", tmp_path, *model, *start))
    assert accuracy(done) > 80
    path = str(tmp_path / "checkpoint_last.pt")
    before, after = (checkpoint_utils.load_checkpoint_to_cpu(str(p))["model"] for p in (checkpoint, path))
    fc1 = "encoder.layers.0.fc1.weight"
    assert torch.equal(before[fc1][:, :, 19:], after[fc1][:, :, 19:]) and not torch.equal(before[fc1], after[fc1])
    third = [name for name in before if name.startswith("encoder.layers.2.")]
    assert third and all(torch.equal(before[name], after[name]) for name in third)
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([path])
    assert model.active_subnet == Subnet.from_dict(MIDDLE) and HEAD in model.classification_heads
    task.load_dataset("test")
    sample = task.dataset("test").collater([task.dataset("test")[index] for index in range(21)])
    twin = model.eval().get_active_subnet()
    with torch.no_grad():
        mine, twins = (net(**sample["net_input"], classification_head_name=HEAD)[0] for net in (model, twin))
    torch.testing.assert_close(twins, mine, atol=1e-5, rtol=1e-5)
    options = ["--path", path, "--subnet", str(spaces / "middle.yaml")]
    export.main([*options, "--output", str(tmp_path / "twin.pt")])
    export.main([*options, "--output", str(tmp_path / "out"), "--format", "huggingface", "--allow-padding"])
    (exported,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(tmp_path / "twin.pt")])
    with torch.no_grad():
        again = exported.eval()(**sample["net_input"], classification_head_name=HEAD)[0]
    torch.testing.assert_close(again, mine, atol=1e-5, rtol=1e-5)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["RobertaForSequenceClassification"] and len(config["id2label"]) == 2
    right = (mine.argmax(-1) == sample["target"].flatten()).float().mean()
    assert float(right) * 100 == pytest.approx(float(done.rows("test")[-1]["test_accuracy"]), abs=0.1)


# --- use from Python ---


def test_fairseqs_hub_interface(text, trained, exported, finetuned):
    """Of a supernet, of an exported subnet, and of a fine-tuned one with its head."""
    paths = {trained[0] / "checkpoint_last.pt": RobertaMosModel, exported: RobertaSubnetModel}
    for path, kind in paths.items():
        hub = kind.from_pretrained(str(path.parent), path.name, str(text / "bin"))
        words = hub.task.source_dictionary
        tokens = torch.cat([torch.tensor([words.bos()]), words.encode_line("a b c", add_if_not_exist=False).long()])
        hub.eval()
        features = hub.extract_features(tokens, return_all_hiddens=True)
        assert len(features) == (4 if kind is RobertaMosModel else 3)
        with torch.no_grad():
            expected = hub.model(tokens[None], features_only=True)[0]
        torch.testing.assert_close(features[-1], expected, atol=1e-6, rtol=1e-6)
        hub.register_classification_head("mood", num_classes=3)
        assert hub.predict("mood", tokens).exp().sum().item() == pytest.approx(1, abs=1e-5)
    hub = RobertaSubnetModel.from_pretrained(str(finetuned[0]), "checkpoint_best.pt", str(text / "labelled"))
    found = hub.eval().predict(HEAD, tokens).exp()
    assert found.shape == (1, hub.task.cfg.num_classes)


# --- cost, latency, search, diagnosis ---


def test_search_by_loss_within_a_size(commands, text, trained, tmp_path):
    """The winner keeps the budget; its loss is the evaluator's and fairseq-validate's."""
    checkpoint = trained[0] / "checkpoint_last.pt"
    evaluator = SubnetEvaluator(str(checkpoint), str(text / "bin"), EvaluationOptions(valid_subset="test"))
    options = CostOptions(vocab_size=len(evaluator.task.target_dictionary), max_positions=16)
    space = SearchSpace.from_dict(BERT_SPACE)
    budget = subnet_cost(space.sample_subnet(3), options).params
    words = ["--path", checkpoint, "--algorithm", "random", "--num-subnets", 40, "--output", tmp_path / "search"]
    commands.fork("mos-search", text / "bin", *words, "--constraint", f"params<={budget}", "--valid-subset", "test")
    best = json.loads((tmp_path / "search" / "search.json").read_text())["best"]
    architecture = Subnet.from_dict(best["architecture"])
    assert best["params"] == subnet_cost(architecture, options).params <= budget
    assert best["loss"] == pytest.approx(evaluator.evaluate(architecture), abs=1e-5)
    assert best["loss"] <= evaluator.evaluate(space.smallest()) + 1e-5
    judged = ["--path", checkpoint, "--subnet", tmp_path / "search" / "best.yaml", "--valid-subset", "test"]
    judged += ["--task", "masked_lm_mos", "--batch-size", 4, *LOG]
    done = commands.fork("validate", text / "bin", *PLUGIN, *judged)
    assert float(done.rows("test")[-1]["test_loss"]) == pytest.approx(best["loss"], abs=1e-3)


def test_latency_of_one_forward_pass(commands, text, spaces, trained, tmp_path):
    """Measured at a length and a batch size, fitted, and a constraint of a search."""
    sizes = ["--vocab-size", 17, "--src-len", 7, "--batch-size", 2, "--repeats", 1]
    words = ["--search-space", spaces / "space.yaml", "--num-subnets", 26, "--output", tmp_path / "latency.jsonl"]
    commands.fork("mos-latency", "measure", *words, *sizes)
    header = json.loads((tmp_path / "latency.jsonl").read_text().split("\n")[0])
    assert header["options"]["workload"] == "features" and header["options"]["src_len"] == 7
    predictor = tmp_path / "predictor.json"
    commands.fork("mos-latency", "fit", tmp_path / "latency.jsonl", "--output", predictor, "--folds", 3)
    limit = LatencyPredictor.load(predictor).predict([SearchSpace.from_dict(BERT_SPACE).smallest()])[0] * 1.001
    search = ["--path", trained[0] / "checkpoint_last.pt", "--predictor", predictor, "--output", tmp_path / "search"]
    search += ["--constraint", f"latency_ms<={limit:.9f}", "--algorithm", "random", "--num-subnets", 3]
    commands.fork("mos-search", text / "bin", *search)
    assert json.loads((tmp_path / "search" / "search.json").read_text())["best"]["latency_ms"] <= limit


def test_a_budget_that_no_subnet_keeps(commands, text, trained, tmp_path):
    words = ["--path", trained[0] / "checkpoint_last.pt", "--output", tmp_path, "--constraint", "params<=10"]
    done = commands.fork("mos-search", text / "bin", *words, check=False)
    assert "params<=10" in done.error()


def test_diagnosis(commands, text, trained, tmp_path):
    words = ["--path", trained[0] / "checkpoint_last.pt", "--output", tmp_path / "diagnosis"]
    done = commands.fork("mos-diagnose", text / "bin", *words)
    assert all(f"encoder {number} ffn" in done.out for number in (1, 2, 3))


def test_cost(commands, spaces):
    words = ["--search-space", spaces / "bottleneck.yaml", "--vocab-size", 20, "--max-positions", 16, "--src-len", 9]
    row, _ = map(json.loads, commands.fork("mos-cost", *words, "--json").out.splitlines())
    assert row["params"] - row["params_without_embeddings"] == 20 * (24 + 1) + 18 * 24
    assert row["flops"] - row["flops_without_output_projection"] == 2 * 9 * 24 * 20
    done = commands.fork("mos-cost", *words, "--tgt-len", 3, check=False)
    assert done.error() == "tgt_len is 3: it has no effect on subnets of family encoder_only"


# --- exports ---


def test_a_stock_roberta_needs_no_plugin(commands, text, spaces, trained, tmp_path):
    """fairseq-validate reads it, and it has the subnet's loss."""
    checkpoint, output = trained[0] / "checkpoint_last.pt", tmp_path / "roberta.pt"
    options = ["--subnet", spaces / "middle.yaml", "--format", "fairseq", "--output", output]
    done = commands.fork("mos-export", "--path", checkpoint, *options, check=False)
    assert done.error().startswith("encoder has 3 heads of width 6 and 2 heads of width 6: stock fairseq has one")
    assert not output.exists()
    commands.fork("mos-export", "--path", checkpoint, *options, "--allow-padding")
    blocks = ["--sample-break-mode", "none", "--batch-size", 1, *LOG]  # these also work in fairseq alone under numpy 2
    blocks += ["--required-batch-size-multiple", 1]
    scored = commands.fork("validate", text / "bin", "--task", "masked_lm", "--path", output, *blocks)
    assert "| mos_fairseq." not in scored.out  # no logger of it
    plugin = [*PLUGIN, "--task", "masked_lm_mos", "--path", checkpoint, "--subnet", spaces / "middle.yaml"]
    expected = commands.fork("validate", text / "bin", *plugin, *blocks).rows("valid")[-1]["valid_loss"]
    assert float(scored.rows("valid")[-1]["valid_loss"]) == pytest.approx(float(expected), abs=2e-3)


def test_a_fine_tuned_subnet_for_hugging_face_and_stock_fairseq(commands, text, finetuned, tmp_path):
    """transformers' pipeline predicts the same classes as fairseq, for all sentences of the test set."""
    path = finetuned[0] / "checkpoint_best.pt"
    options = ["--path", path, "--allow-padding"]
    done = commands.fork("mos-export", *options, "--format", "huggingface", "--output", tmp_path / "out")
    assert "huggingface; a subnet of" in done.out
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    labels = task.label_dictionary.symbols[task.label_dictionary.nspecial :]
    lines = (text / "test.text").read_text().splitlines()
    words, expected = task.source_dictionary, []
    for line in lines:
        tokens = torch.cat([torch.tensor([words.bos()]), words.encode_line(line, add_if_not_exist=False).long()])
        with torch.no_grad():
            logits = model.eval()(tokens[None], classification_head_name=HEAD)[0][0]
        expected.append(torch.softmax(logits, -1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", None)
        import transformers

        found = transformers.pipeline("text-classification", model=str(tmp_path / "out"), top_k=None)(lines)
    for entries, probabilities in zip(found, expected, strict=True):
        scores = {entry["label"]: entry["score"] for entry in entries}
        assert [scores[label] for label in labels[:2]] == pytest.approx(probabilities.tolist(), abs=1e-4)
    commands.fork("mos-export", *options, "--format", "fairseq", "--output", tmp_path / "stock.pt")
    task = ["--task", "sentence_prediction", "--criterion", "sentence_prediction", "--path", tmp_path / "stock.pt"]
    task += ["--valid-subset", "test", "--batch-size", 5, *LOG]
    row = commands.fork("validate", text / "labelled", *task).rows("test")[-1]
    right = sum(
        labels[int(probabilities.argmax())] == label
        for probabilities, label in zip(expected, (text / "test.label").read_text().split(), strict=True)
    )
    assert float(row["test_accuracy"]) == pytest.approx(100 * right / len(lines), abs=0.1)


# --- Hugging Face's models as a start ---


def test_from_a_bert_of_hugging_face_to_a_folder_for_it(commands, text, spaces, tmp_path):
    """Its tokens are the dictionary, the supernet is trained on, and a subnet goes back with its tokenizer."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", None)
        import transformers

        sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 37}
        config = transformers.BertConfig(vocab_size=len(tokens), max_position_embeddings=16, **sizes)
        transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(tokens) + "\n")
    warm = tmp_path / "warm.pt"
    start = ["--path", tmp_path / "bert", "--search-space", spaces / "bottleneck.yaml", "--output", warm]
    done = commands.fork("mos-warm-start", *start)
    assert "--max-positions 16 --layer-norm-eps 1e-12" in done.out and f"{warm}.dict.txt: its dictionary" in done.out
    paths = [x for split in ("train", "valid") for x in (f"--{split}pref", text / f"{split}.text")]
    commands.fork("preprocess", "--only-source", *paths, "--srcdict", f"{warm}.dict.txt", "--destdir", tmp_path / "bin")
    options = ["--layer-norm-eps", 1e-12, "--max-positions", 16, "--finetune-from-model", warm, "--max-update", 3]
    arguments = training(tmp_path / "bin", tmp_path / "save", *options, space=spaces / "bottleneck.yaml")
    assert len(commands.fork("train", *arguments).rows("train_inner")) == 3
    uniform = ["--path", tmp_path / "bert", "--search-space", spaces / "space.yaml", "--output", warm]
    commands.fork("mos-warm-start", *uniform, "--mos-routing", "layer")
    out = ["--format", "huggingface", "--output", tmp_path / "out", "--data", tmp_path / "bin"]
    commands.fork("mos-export", "--path", warm, "--subnet", "largest", *out)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["layer_norm_eps"] == 1e-12
    by_weights = torch.load(warm)["model"]["encoder.embed_tokens.weight"]
    commands.fork("mos-warm-start", *uniform, "--mos-routing", "layer", "--data", tmp_path / "bin", "--max-tokens", 99)
    by_gradients = torch.load(warm)["model"]["encoder.embed_tokens.weight"]
    assert not torch.equal(by_gradients, by_weights)
    message = commands.fork("mos-warm-start", *uniform, "--data", text / "bin", check=False).error()
    assert message.startswith("data is ") and message.endswith(f"words, that of the model {len(tokens)}")


# --- mistakes ---


def test_what_masked_language_models_do_not_have(commands, text, trained, exported, spaces, tmp_path):
    path = ["--path", trained[0] / "checkpoint_last.pt", "--output", tmp_path / "none"]

    def refused(*words: object) -> str:
        return commands.fork(*words, check=False).error()

    message = refused("mos-search", text / "bin", *path, "--objective", "bleu")
    assert message == "objective is bleu: models of family encoder_only are judged by loss"
    message = refused("mos-export", *path, "--subnet", "largest", "--format", "ctranslate2")
    assert message.startswith("mos-export --format ctranslate2: for encoder_decoder, the checkpoint is encoder_only")
    assert refused("mos-export", *path).startswith("subnet is not given: ")
    twin = ["--path", exported, "--output", tmp_path / "none"]
    assert "a static twin already" in refused("mos-export", *twin)
    assert "a static twin already" in refused("mos-export", *twin, "--format", "fairseq", "--subnet", "largest")
    space = ["--search-space", spaces / "space.yaml", "--vocab-size", 30]
    message = refused("mos-benchmark", *space, "--output", tmp_path / "none")
    assert message == "mos-benchmark: for encoder_decoder, the search space is encoder_only"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--search-space", "tiny"], ["family encoder_decoder", "roberta_mos takes encoder_only"]),
        (["--mask-whole-words"], ["mask_whole_words is True: it is not offered for supernets"]),
        (["--subnet", "smallest"], ["subnet is smallest: it has no effect with subnet_sampling sandwich"]),
        (["--criterion", "cross_entropy"], ["criterion is cross_entropy", "masked_lm_mos takes masked_lm, "]),
        (["--mask-prob", 0], ["mask_prob is 0", "above 0, below 1"]),
        (["--mask-prob", 1e-9], ["has nothing to predict with mask_prob 1e-09"]),
        (["--random-token-prob", 1.5], ["random_token_prob is 1.5", "from 0 to 1"]),
        (["--random-token-prob", 0.6, "--leave-unmasked-prob", 0.5], ["random_token_prob is 0.6", "a sum of 1"]),
        (["--tokens-per-sample", 40, "--max-tokens", 4], ["none of", "of train", "--max-tokens"]),
        (["--arch", "roberta"], ["arch is roberta: masked_lm_mos trains supernets (--arch roberta_mos)"]),
    ],
)
def test_mistakes_of_training(commands, text, spaces, tmp_path, options, words):
    arguments = training(text / "bin", tmp_path, *options, space=spaces / "space.yaml")
    check(commands.fork("train", *arguments, check=False), tmp_path, words)
