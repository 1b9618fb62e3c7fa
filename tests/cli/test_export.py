"""mos-export and mos-cost, and fairseq's commands on exported models."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import ctranslate2
import pytest
import torch
import yaml
from fairseq import checkpoint_utils
from fairseq.data.data_utils import collate_tokens

import mos_fairseq  # noqa: F401  makes checkpoints readable

from .conftest import MIDDLE, USER_DIR, generation, same_translations, training

# fairseq's own tasks skip the longest sentences of a set whose size is no multiple of 8
WHOLE = ("--required-batch-size-multiple", 1)
# for a language model: blocks of tokens, which also work in fairseq alone under numpy 2
SCORING = ("--batch-size", 4, "--tokens-per-sample", 32, "--sample-break-mode", "none", "--no-progress-bar", *WHOLE)


@pytest.fixture(scope="module")
def by_supernet(commands, joined, supernet):
    """subnet -> hypotheses and their scores of the supernet with that subnet active."""
    found = {}

    def translate(subnet: str):
        if subnet not in found:
            checkpoint = supernet[0] / "checkpoint_last.pt"
            found[subnet] = commands.fork("generate", *generation(joined, checkpoint, "--subnet", subnet))
        return found[subnet]

    return translate


def export(commands, supernet, subnet: object, output, *options: object, check: bool = True):
    path = ["--path", supernet[0] / "checkpoint_last.pt"]
    return commands.fork("mos-export", *path, "--subnet", subnet, "--output", output, *options, check=check)


@pytest.mark.parametrize("name", ["largest", "random:7", "middle.yaml"])
def test_twin_translates_as_the_active_subnet(commands, joined, supernet, files, tmp_path, by_supernet, name):
    subnet = str(files / name) if name.endswith("yaml") else name
    done = export(commands, supernet, subnet, tmp_path / "twin.pt")
    assert "transformer_subnet" in done.out and [p.name for p in tmp_path.iterdir()] == ["twin.pt"]
    twin = commands.fork("generate", *generation(joined, tmp_path / "twin.pt", *WHOLE, task="translation"))
    assert same_translations(twin.found("H"), by_supernet(subnet).found("H"))


def test_stock_checkpoint_needs_no_plugin(commands, joined, supernet, tmp_path, by_supernet):
    """Not even the repairs: the file holds plain containers and tensors only."""
    export(commands, supernet, "smallest", tmp_path / "stock.pt", "--format", "fairseq")
    arguments = ["--path", tmp_path / "stock.pt", "--beam", 2, "--max-len-b", 10, "--no-progress-bar"]
    stock = commands.fork("generate", joined, *arguments, *WHOLE)
    assert "mos_fairseq" not in stock.out + stock.err
    assert same_translations(stock.found("H"), by_supernet("smallest").found("H"))


def test_ctranslate2s_own_converter_reads_the_stock_checkpoint(commands, joined, text, supernet, tmp_path):
    """Without a plugin, and without leave to run code of the file; the model is the one that mos-export makes."""
    export(commands, supernet, "smallest", tmp_path / "stock.pt", "--format", "fairseq")
    export(commands, supernet, "smallest", tmp_path / "ours", "--format", "ctranslate2")
    words = ["--model_path", tmp_path / "stock.pt", "--data_dir", joined, "--output_dir", tmp_path / "theirs"]
    script = Path(sys.executable).with_name("ct2-fairseq-converter")
    commands.python(script, *words, check=True)
    sentences = [line.split() for line in (text / "test.xx").read_text().splitlines()]
    models = [ctranslate2.Translator(str(tmp_path / name)) for name in ("theirs", "ours")]
    assert models[1].translate_batch([[]])[0].hypotheses == [[]]  # README says so
    theirs, ours = ([found.log_probs for found in model.score_batch(sentences, sentences)] for model in models)
    assert [len(scores) for scores in ours] == [len(words) + 1 for words in sentences]
    for pair in zip(theirs, ours, strict=True):
        assert pair[0] == pytest.approx(pair[1], abs=1e-4)


@pytest.fixture(scope="module")
def by_heart(supernet, text, tmp_path_factory) -> Path:
    """Return the supernet's checkpoint after its smallest subnet has memorised the test set.

    With every word's probability above 0.9, all programs choose the same word at each step, independent of rounding. (A
    larger beam gives no such certainty: a search ends with its second finished hypothesis, however bad that is.)
    """
    path = supernet[0] / "checkpoint_last.pt"
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    model.eval().set_active_subnet(model.search_space.smallest())
    pad, eos = task.tgt_dict.pad(), task.tgt_dict.eos()
    lines = [(text / f"test.{language}").read_text().splitlines() for language in ("xx", "yy")]
    tokens = [[task.tgt_dict.encode_line(line, add_if_not_exist=False).long() for line in side] for side in lines]
    source, target = collate_tokens(tokens[0], pad, left_pad=True), collate_tokens(tokens[1], pad)
    previous = collate_tokens(tokens[1], pad, eos, move_eos_to_beginning=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(3000):
        found = model(source, source.ne(pad).sum(1), previous)[0].log_softmax(-1)
        of_words = found.gather(-1, target.unsqueeze(-1)).squeeze(-1)[target.ne(pad)]
        if of_words.min().exp() > 0.9:
            break
        optimizer.zero_grad()
        (-of_words.mean()).backward()
        optimizer.step()
    else:
        pytest.fail(f"a word's probability is still {of_words.min().exp():.2f}")
    state = torch.load(path)
    state["model"] = model.state_dict()
    learnt = tmp_path_factory.mktemp("by_heart") / "checkpoint.pt"
    torch.save(state, learnt)
    return learnt


@pytest.mark.slow
def test_ctranslate2_translates_as_the_active_subnet(commands, joined, text, by_heart, tmp_path):
    words = ["--path", by_heart, "--subnet", "smallest", "--output", tmp_path / "model"]
    commands.fork("mos-export", *words, "--format", "ctranslate2")
    translator = ctranslate2.Translator(str(tmp_path / "model"), compute_type="float32")
    sentences = [line.split() for line in (text / "test.xx").read_text().splitlines()]
    found = translator.translate_batch(sentences, beam_size=1, max_decoding_length=10)
    hypotheses = [" ".join(result.hypotheses[0]) for result in found]
    arguments = generation(joined, by_heart, "--subnet", "smallest", "--beam", 1)
    generated = commands.fork("generate", *arguments).hypotheses()
    assert hypotheses == [words for _, words in sorted(generated.items())]
    assert hypotheses == (text / "test.yy").read_text().splitlines()


def test_ctranslate2_with_quantized_weights(commands, text, supernet, tmp_path):
    """With 8 bits, the words of so small a model are luck, but the type of its matrices is not."""
    for name, options in (("float32", []), ("int8", ["--quantization", "int8"])):
        export(commands, supernet, "smallest", tmp_path / name, "--format", "ctranslate2", *options)
    whole, small = ((tmp_path / name / "model.bin").stat().st_size for name in ("float32", "int8"))
    assert small < 0.6 * whole
    translator = ctranslate2.Translator(str(tmp_path / "int8"), compute_type="int8")
    assert translator.compute_type.startswith("int8")
    sentences = [line.split() for line in (text / "test.xx").read_text().splitlines()]
    assert len(translator.translate_batch(sentences, beam_size=2, max_decoding_length=10)) == len(sentences)


@pytest.mark.slow
def test_fine_tuning_an_exported_twin(commands, joined, supernet, files, tmp_path):
    """From the twin's weights, with the stock task and criterion, and on to lower losses than at its start."""
    export(commands, supernet, "smallest", tmp_path / "twin.pt")
    architecture = torch.load(tmp_path / "twin.pt", weights_only=True)["cfg"]["model"]["subnet"]
    (tmp_path / "subnet.yaml").write_text(yaml.safe_dump(json.loads(architecture)))
    options = ["--subnet", tmp_path / "subnet.yaml", "--finetune-from-model", tmp_path / "twin.pt"]
    stock = {"arch": "transformer_subnet", "task": "translation", "criterion": "label_smoothed_cross_entropy"}
    longer = ["--max-update", 12, "--lr", 0.003]
    arguments = training(joined, tmp_path / "tuned", *options, *longer, **stock)
    done = commands.fork("train", *arguments)
    losses = [float(row["train_loss" if "train_loss" in row else "loss"]) for row in done.rows("train_inner")]
    alone = commands.fork("train", *training(joined, tmp_path / "alone", *options[:2], "--max-update", 1, **stock))
    fresh, trained = float(alone.rows("train_inner")[0]["loss"]), supernet[1].rows("train_inner")[-1]["loss_smallest"]
    assert losses[0] < (fresh + float(trained)) / 2  # batches differ, by less
    assert min(losses[1:]) < losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--subnet", "largset"], "subnet 'largset': no such file; allowed are largest"),
        (["--subnet", "largest", "--path", "absent.pt"], "checkpoint absent.pt: no such file"),
        (["--subnet", "largest", "--path", "."], "checkpoint .: it is a folder, allowed is a file in it"),
        (["--subnet", "largest", "--path", "empty.pt"], "checkpoint empty.pt: the file is empty"),
        (["--subnet", "largest", "--path", "tensor.pt"], "checkpoint tensor.pt: not a fairseq checkpoint"),
        (["--subnet", "largest", "--path", "dict.pt"], "checkpoint dict.pt: not a fairseq checkpoint"),
        (["--subnet", "largest", "--path", "dict.pt", "--output", "dict.pt"], "output is dict.pt: it is path, too"),
        (["--subnet", "smallest", "--output", "."], ".: cannot be written (it names a folder)"),
        (["--subnet", "largest", "--allow-padding"], "allow_padding is given with format twin"),
        (["--subnet", "largest", "--format", "fairseq"], "stock fairseq"),
        (["--subnet", "largest", "--format", "ctranslate2"], "CTranslate2 attends to the last encoder layer only"),
        (["--subnet", "smallest", "--format", "ctranslate2", "--data", "x"], "data is x: no such folder"),
        (["--subnet", "smallest", "--quantization", "int8"], "quantization is given with format twin"),
        (["--subnet", "smallest", "--output", "no/such/folder.pt"], "no/such/folder.pt: cannot be written"),
    ],
)
def test_bad_input(commands, supernet, tmp_path, arguments, message):
    (tmp_path / "empty.pt").touch()
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save({"model": torch.zeros(3)}, tmp_path / "dict.pt")
    path = ["--path", supernet[0] / "checkpoint_last.pt", "--output", "out.pt"]
    done = commands.fork("mos-export", *path, *arguments, cwd=tmp_path, check=False)
    assert message in done.error()
    assert {p.name for p in tmp_path.iterdir()} == {"empty.pt", "tensor.pt", "dict.pt"}


def test_a_twin_has_no_subnets(commands, supernet, tmp_path):
    done = export(commands, supernet, "smallest", tmp_path / "twin.pt", "--format", "transformer_subnet", "--json")
    assert json.loads(done.out)["format"] == "twin"  # as the format is called now
    arguments = ["--path", tmp_path / "twin.pt", "--subnet", "smallest", "--output", tmp_path / "again.pt"]
    assert "of one subnet, a static twin already" in commands.fork("mos-export", *arguments, check=False).error()


@pytest.fixture(scope="module")
def loss_by_supernet(commands, monolingual, language_supernet):
    """subnet -> loss per token, base 2, of the language model's supernet with that subnet active."""
    plugin = ["--user-dir", USER_DIR, "--task", "language_modeling_mos", "--path", language_supernet]
    return lambda name: loss_of(commands.fork("eval_lm", monolingual, *plugin, *SCORING, "--subnet", name))


def loss_of(done) -> float:
    return float(re.search(r"Loss \(base 2\): ([0-9.]+)", done.out + done.err)[1])


def export_language(commands, checkpoint, subnet: str, output, *options: object, check: bool = True):
    path = ["--path", checkpoint, "--subnet", subnet, "--output", output]
    return commands.fork("mos-export", *path, *options, check=check)


@pytest.mark.parametrize("name", ["largest", "smallest", "random:3"])
def test_a_language_models_twin_has_the_subnets_loss(
    commands, monolingual, language_supernet, loss_by_supernet, tmp_path, name
):
    done = export_language(commands, language_supernet, name, tmp_path / "twin.pt")
    assert "--task language_modeling --arch transformer_lm_subnet" in done.out
    plugin = ["--user-dir", USER_DIR, "--task", "language_modeling", "--path", tmp_path / "twin.pt"]
    found = loss_of(commands.fork("eval_lm", monolingual, *plugin, *SCORING))
    assert found == pytest.approx(loss_by_supernet(name), abs=2e-3)  # three digits are printed


@pytest.mark.parametrize(("name", "options"), [("smallest", []), ("largest", ["--allow-padding"])])
def test_a_stock_language_model_needs_no_plugin(
    commands, monolingual, language_supernet, loss_by_supernet, tmp_path, name, options
):
    """fairseq-eval-lm and fairseq-generate read it, and it has the subnet's loss. (fairseq continues no block of text
    that holds an end of a sentence, and one sentence a block it cuts under numpy 1 only: the set is one sentence.)"""
    export_language(commands, language_supernet, name, tmp_path / "lm.pt", "--format", "fairseq", *options)
    model = torch.load(tmp_path / "lm.pt", weights_only=True)["cfg"]["model"]
    assert model["_name"] == "transformer_lm" and model["tokens_per_sample"] == 64
    path = ["--path", tmp_path / "lm.pt"]
    scored = commands.fork("eval_lm", monolingual, "--task", "language_modeling", *path, *SCORING)
    assert "mos_fairseq" not in scored.out + scored.err
    assert loss_of(scored) == pytest.approx(loss_by_supernet(name), abs=2e-3)
    (tmp_path / "one").write_text("a b c\n")
    data = ["--only-source", "--srcdict", monolingual / "dict.txt", "--testpref", tmp_path / "one"]
    commands.fork("preprocess", *data, "--destdir", tmp_path / "bin")
    search = ["--beam", 2, "--max-len-b", 10, "--no-progress-bar", *WHOLE, "--tokens-per-sample", 32]
    generated = commands.fork("generate", tmp_path / "bin", "--task", "language_modeling", *path, *search)
    assert "mos_fairseq" not in generated.out + generated.err
    assert generated.hypotheses()[0].startswith("a b c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "ctranslate2"], "mos-export --format ctranslate2: for encoder_decoder, the checkpoint is"),
        (["--format", "fairseq"], "decoder has 4 heads of width 4: stock fairseq has one number of heads"),
    ],
)
def test_what_a_language_model_is_not_exported_to(commands, language_supernet, tmp_path, arguments, message):
    done = export_language(commands, language_supernet, "largest", tmp_path / "out", *arguments, check=False)
    assert message in done.error() and not list(tmp_path.iterdir())


def test_cost_of_subnets(commands, files):
    space = ["--search-space", files / "space.yaml"]
    names = ["--subnet", f"smallest,{files / 'middle.yaml'}"]
    rows = commands.fork("mos-cost", *space, *names, "--vocab-size", 20, "--json").out.splitlines()
    smallest, middle = map(json.loads, rows)
    assert middle["architecture"] == MIDDLE | {"qkv_dim": 16}
    assert smallest["params"] - smallest["params_without_embeddings"] == 20 * (16 + 2 * 16)
    assert smallest["flops"] - smallest["flops_without_output_projection"] == 2 * 30 * 16 * 20
    table = commands.fork("mos-cost", *space).out.splitlines()
    assert [line.split()[0] for line in table[:3]] == ["subnet", "largest", "smallest"]
    assert f"{smallest['flops_without_output_projection']:,}" in table[2] and "--vocab-size" in table[3]


def test_cost_of_what_is_not_in_the_space(commands, files):
    done = commands.fork("mos-cost", "--search-space", "tiny", "--subnet", files / "middle.yaml", check=False)
    assert "is not in the search space" in done.error()
