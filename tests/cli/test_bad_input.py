"""Users' mistakes: one line that names the field, the value and what is allowed; nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from mos_fairseq.errors import InputError
from mos_fairseq.search_space import SearchSpace
from tests.spaces import EVEN_SPACE

from .conftest import MIDDLE, generation, training

# name -> (file's content, required parts of the error line)
SPACES = {
    "unknown_key": (EVEN_SPACE | {"encoder_width": [3]}, ["encoder_width", "encoder_embed_dim"]),
    "duplicate_choices": (EVEN_SPACE | {"encoder_embed_dim": [24, 24]}, ["encoder_embed_dim", "duplicate", "24"]),
    "heads": (EVEN_SPACE | {"encoder_attention_heads": [3]}, ["encoder_attention_heads", "3", "qkv_dim=16"]),
    "two_widths": (EVEN_SPACE | {"head_dim": 4}, ["qkv_dim", "head_dim", "exactly one"]),
}
# name -> (options, required parts of the error line); FILES/ stands for the folder of the fixture
OPTIONS = {
    "preset": (["--search-space", "wmt15"], ["search space", "wmt15", "tiny", "wmt14_en_de"]),
    "no_space_file": (["--search-space", "FILES/none.yaml"], ["none.yaml", "no preset and no file"]),
    "empty_space_file": (["--search-space", "FILES/empty.yaml"], ["empty.yaml", "empty"]),
    "arch": (["--arch", "transformer"], ["transformer", "transformer_mos", "--task translation"]),
    "num_experts": (["--num-experts", 0], ["num_experts", "0", "from 1 up"]),
    "dropout": (["--dropout", 1.5], ["dropout", "1.5", "from 0"]),
    "label_smoothing": (["--label-smoothing", 2], ["label_smoothing", "2", "from 0"]),
    "num_random": (["--num-random-subnets", 0], ["num_random_subnets", "0", "from 1 up"]),
    "fixed_nothing": (["--subnet-sampling", "fixed"], ["subnet_sampling", "fixed", "--subnet"]),
    "fixed_outside": (["--subnet-sampling", "fixed", "--subnet", "FILES/outside.yaml"], ["outside.yaml", "17", "24"]),
    "subnet_file": (["--subnet", "FILES/none.yaml"], ["none.yaml", "no such file", "random:SEED"]),
    "subnet_random": (["--subnet", "random:x"], ["random:x", "whole number"]),
    "valid_twice": (["--valid-subnets", "largest,largest"], ["largest", "twice"]),
    "valid_empty": (["--valid-subnets", "largest,,smallest"], ["empty", "largest, smallest"]),
    "valid_outside": (["--valid-subnets", "FILES/outside.yaml"], ["outside.yaml", "17"]),
    "best_metric": (["--best-checkpoint-metric", "loss_smalest"], ["loss_smalest", "smallest", "--valid-subnets"]),
    "bleu_args": (["--eval-bleu", "--eval-bleu-args", "{beam: 4}"], ["eval_bleu_args", "{beam: 4}", "JSON"]),
    "bleu_unknown": (["--eval-bleu", "--eval-bleu-args", '{"baem": 2}'], ["eval_bleu_args", "baem", "beam"]),
    "bleu_text": (["--eval-bleu", "--eval-bleu-args", '{"beam": "x"}'], ["beam", '"x"', "whole number"]),
    "bleu_beam": (["--eval-bleu", "--eval-bleu-args", '{"beam": 0}'], ["beam 0", "from 1 up"]),
    "bleu_switch": (["--eval-bleu", "--eval-bleu-args", '{"sampling": 1}'], ["sampling 1", "true or false"]),
    "bleu_detok": (["--eval-bleu", "--eval-bleu-detok", "xyz"], ["eval_bleu_detok", "xyz", "moses, nltk, space"]),
    "bleu_detok_args": (["--eval-bleu", "--eval-bleu-detok-args", '{"a": 1}'], ["a", "space", "takes none"]),
    "bleu_moses": (
        ["--eval-bleu", "--eval-bleu-detok", "moses", "--eval-bleu-detok-args", '{"x": 1}'],
        ["eval_bleu_detok_args has x", "moses_no_escape", "target_lang"],
    ),
    "bleu_bpe": (["--eval-bleu", "--eval-bleu-remove-bpe", "foo"], ["eval_bleu_remove_bpe", "foo", "sentencepiece"]),
    "source": (["--source-lang", "zz"], ["source_lang is zz", "xx-yy", "give both"]),
    "target": (["--target-lang", "xx"], ["target_lang is xx", "xx-yy", "give both"]),
    "upsample": (["--upsample-primary", 2], ["upsample_primary is 2", "no effect", "no train1"]),
    "upsample_no": (["--upsample-primary", 0], ["upsample_primary is 0", "from 1 up"]),
    "alignments": (["--load-alignments"], ["load_alignments", "no effect", "train.align.xx-yy"]),
    "prefix": (["--ignore-prefix-size", 500], ["train has nothing to predict", "ignore_prefix_size 500"]),
    "prefix_below": (["--ignore-prefix-size", -1], ["ignore_prefix_size is -1", "from 0 up"]),
    "log_interval": (["--log-interval", 0], ["log_interval is 0", "from 1 up"]),
    "max_tokens": (["--max-tokens", 2], ["none of", "examples of train", "--max-tokens"]),
    "finetune_nothing": (["--finetune-from-model", "FILES/none.pt"], ["--finetune-from-model", "none.pt"]),
    "finetune_restore": (
        ["--finetune-from-model", "FILES/none.pt", "--restore-file", "FILES/none.pt"],
        ["--finetune-from-model and --restore-file", "can not be specified together"],
    ),
    "adaptive": (["--criterion", "adaptive_loss"], ["adaptive_loss", "no adaptive softmax"]),
    "bleu_not_measured": (["--best-checkpoint-metric", "bleu_smallest"], ["bleu_smallest", "--eval-bleu"]),
}


@pytest.fixture(scope="module")
def bad_files(files):
    (files / "empty.yaml").write_text("")
    (files / "outside.yaml").write_text(yaml.safe_dump(MIDDLE | {"decoder_embed_dim": 17}))
    return files


def check(done, save_dir: Path, words: list[str]) -> None:
    message = done.error()
    missing = [word for word in words if word not in message]
    assert not missing, message
    assert not save_dir.exists() or not list(save_dir.iterdir())


@pytest.mark.parametrize("name", SPACES)
def test_bad_space(tmp_path, name):
    """The reader of the space reports it; one case through the command is enough."""
    content, words = SPACES[name]
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as error:
        SearchSpace.from_spec(str(tmp_path / "space.yaml"))
    assert not [word for word in words if word not in str(error.value)], error.value


@pytest.mark.slow
def test_bad_space_in_training(commands, joined, tmp_path):
    content, words = SPACES["unknown_key"]
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(content))
    done = commands.fork("train", *training(joined, tmp_path / "save", space=tmp_path / "space.yaml"), check=False)
    check(done, tmp_path / "save", ["space.yaml", *words])


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_option(commands, joined, bad_files, tmp_path, name):
    options, words = OPTIONS[name]
    options = [str(option).replace("FILES", str(bad_files)) for option in options]
    arguments = training(joined, tmp_path / "save", *options, space=bad_files / "space.yaml")
    check(commands.fork("train", *arguments, check=False), tmp_path / "save", words)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({}, ["translation_mos", "--search-space", "tiny"]),
        ({"task": "translation"}, ["transformer_mos", "--task translation_mos", "--search-space"]),
        ({"arch": "transformer_subnet", "task": "translation"}, ["transformer_subnet", "--subnet"]),
    ],
)
def test_task_arch_and_space_must_fit(commands, joined, tmp_path, what, words):
    done = commands.fork("train", *training(joined, tmp_path / "save", **what), check=False)
    check(done, tmp_path / "save", words)


@pytest.mark.parametrize(
    ("file", "words"),
    [("none.yaml", ["No such file"]), ("empty.yaml", ["empty"]), ("middle.yaml", ["qkv_dim", "head_dim"])],
)
def test_static_twin_subnet_file(commands, joined, bad_files, tmp_path, file, words):
    options = ["--subnet", bad_files / file]
    arguments = training(joined, tmp_path / "save", *options, arch="transformer_subnet", task="translation")
    check(commands.fork("train", *arguments, check=False), tmp_path / "save", [file, *words])


def test_shared_embeddings_need_one_dictionary(commands, separate, files, tmp_path):
    done = commands.fork("train", *training(separate, tmp_path / "save", space=files / "space.yaml"), check=False)
    check(done, tmp_path / "save", ["share_all_embeddings", "--joined-dictionary"])


# --- data ---


@pytest.mark.slow
def test_data_folder(commands, joined, files, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copytree(joined, tmp_path / "no_dict")
    (tmp_path / "no_dict" / "dict.yy.txt").unlink()
    shutil.copytree(joined, tmp_path / "no_valid")
    for file in (tmp_path / "no_valid").glob("valid*"):
        file.unlink()
    shutil.copytree(joined, tmp_path / "no_target")
    for file in (tmp_path / "no_target").glob("train.xx-yy.yy.*"):
        file.unlink()
    for folder, words in (
        ("none", ["none", "no such folder"]),
        ("empty", ["empty", "--source-lang"]),
        ("no_dict", ["dict.yy.txt", "fairseq-preprocess"]),
        ("no_valid", ["no_valid", "valid"]),
        ("no_target", ["no_target: it has no translations of train, train.xx-yy.yy"]),
    ):
        arguments = training(tmp_path / folder, tmp_path / "save", space=files / "space.yaml")
        check(commands.fork("train", *arguments, check=False), tmp_path / "save", words)


# --- checkpoints ---


@pytest.mark.slow
def test_bad_checkpoint(commands, joined, supernet, files, tmp_path):
    good = supernet[0] / "checkpoint_last.pt"
    (tmp_path / "cut.pt").write_bytes(good.read_bytes()[:20000])
    cases = [
        (tmp_path / "none.pt", [], ["none.pt", "no such file"]),
        (tmp_path / "cut.pt", [], ["cut.pt", "truncated"]),
        (files / "space.yaml", [], ["space.yaml", "not a checkpoint"]),
        (good, ["--search-space", files / "other.yaml"], ["search_space", "encoder_ffn_embed_dim", "24] vs [32, 28]"]),
        (good, ["--subnet", "random:"], ["random:", "whole number"]),
        (good, ["--subnet", "biggest"], ["biggest", "largest, smallest, random:SEED"]),
    ]
    for path, options, words in cases:
        check(commands.fork("generate", *generation(joined, path, *options), check=False), tmp_path / "save", words)


def test_stock_checkpoint(commands, joined, tmp_path):
    sizes = [f"--{side}-{what}" for side in ("encoder", "decoder") for what in ("embed-dim", "ffn-embed-dim")]
    stock = [x for size in sizes for x in (size, 16)] + ["--encoder-layers", 1, "--decoder-layers", 1]
    how = {"arch": "transformer", "task": "translation", "criterion": "label_smoothed_cross_entropy"}
    commands.fork("train", *training(joined, tmp_path / "stock", *stock, "--max-update", 1, **how))
    done = commands.fork("generate", *generation(joined, tmp_path / "stock" / "checkpoint_last.pt"), check=False)
    check(done, tmp_path / "save", ["arch transformer", "supernet", "--task translation"])


@pytest.mark.slow
def test_resuming_as_another_supernet(commands, joined, supernet, files, tmp_path):
    (tmp_path / "save").mkdir()
    checkpoint = tmp_path / "save" / "checkpoint_last.pt"
    shutil.copy(supernet[0] / "checkpoint_last.pt", checkpoint)
    before = checkpoint.read_bytes()
    cases = [
        ("other.yaml", [], ["encoder_ffn_embed_dim", "[32, 24]", "[32, 28]"]),
        ("space.yaml", ["--mos-routing", "layer"], ["mos_routing", "neuron", "layer"]),
        ("space.yaml", ["--num-experts", 3], ["num_experts", "2", "3"]),
    ]
    for space, options, words in cases:
        arguments = training(joined, tmp_path / "save", "--max-update", 99, *options, space=files / space)
        check(commands.fork("train", *arguments, check=False), tmp_path / "none", words)
    arguments = training(joined, tmp_path / "new", "--finetune-from-model", checkpoint, space=files / "other.yaml")
    check(commands.fork("train", *arguments, check=False), tmp_path / "new", cases[0][2])
    assert checkpoint.read_bytes() == before and len(list((tmp_path / "save").iterdir())) == 1


@pytest.mark.slow
def test_a_sentence_that_is_too_long(commands, joined, files, tmp_path):
    """Training skips it; validation does so only with an option."""
    options = ["--max-source-positions", 5, "--max-update", 1, "--required-batch-size-multiple", 1]
    arguments = training(joined, tmp_path / "save", *options, space=files / "space.yaml")
    message = commands.fork("train", *arguments, check=False).error()
    assert "Size of sample #" in message and "--skip-invalid-size-inputs-valid-test" in message
    done = commands.fork("train", *arguments, "--skip-invalid-size-inputs-valid-test")
    assert len(done.rows("train_inner")) == 1 and "have invalid sizes and will be skipped" in done.out
