"""mos-warm-start end to end: the same translations as the source, better slices when reordered, and training."""

from __future__ import annotations

import pytest
import torch
import yaml

from mos_fairseq.cli.warm_start import main
from mos_fairseq.errors import InputError
from mos_fairseq.evaluation.evaluator import EvaluationOptions, SubnetEvaluator
from tests.spaces import EVEN_LM_SPACE, EVEN_SPACE

from .conftest import USER_DIR, generation, same_translations, training

pytestmark = pytest.mark.slow

PLUGIN = ["--user-dir", USER_DIR, "--task", "translation_mos"]
WARM = {key: value for key, value in EVEN_SPACE.items() if key != "qkv_dim"} | {
    "encoder_ffn_embed_dim": [32, 8],
    "decoder_ffn_embed_dim": [32, 8],
    "decoder_layers": [2],
    "encoder_embed_dim": [24],
    "decoder_embed_dim": [24],
    "decoder_arbitrary_ende_attn": [-1],
    "head_dim": 6,
}


@pytest.fixture(scope="module")
def source(commands, joined, tmp_path_factory):
    """(checkpoint of fairseq's transformer that has learnt a little, search space that holds it, log)."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "space.yaml").write_text(yaml.safe_dump(WARM))
    sizes = [
        word
        for side in ("encoder", "decoder")
        for name, size in (("embed-dim", 24), ("ffn-embed-dim", 32), ("layers", 2), ("attention-heads", 4))
        for word in (f"--{side}-{name}", size)
    ]
    how = {"arch": "transformer", "task": "translation", "criterion": "label_smoothed_cross_entropy"}
    more = ["--max-update", 70, "--disable-validation", "--no-epoch-checkpoints"]
    done = commands.fork("train", *training(joined, folder, *sizes, *more, **how))
    return folder / "checkpoint_last.pt", folder / "space.yaml", done


def warm_start(commands, source, output, *options: object, **kwargs):
    words = ["--path", source[0], "--search-space", source[1], "--output", output, *options]
    words += [] if "none" in options else ["--router-hidden-dim", 9]
    return commands.fork("mos-warm-start", *words, **kwargs)


def test_translations_and_training(commands, joined, source, tmp_path):
    output = tmp_path / "warm.pt"
    done = warm_start(commands, source, output, "--data", joined, "--learn-positions", "--num-experts", 3)
    stock = generation(joined, source[0], "--required-batch-size-multiple", 1, task="translation")
    expected = commands.fork("generate", *stock)
    found = commands.fork("generate", *generation(joined, output))
    assert same_translations(found.found("H"), expected.found("H")) and len(expected.hypotheses()) == 12
    # fairseq-validate takes a subnet, as for a trained supernet
    evaluated = ["--path", output, "--subnet", "smallest", "--max-tokens", 400, "--log-format", "json", *PLUGIN]
    assert "valid_loss_smallest" in commands.fork("validate", joined, *evaluated).rows("valid")[-1]
    message = warm_start(commands, source, tmp_path / "no", "--data", tmp_path, check=False).error()
    assert message.startswith(f"data is {tmp_path}: no file name has the languages") and not (tmp_path / "no").exists()
    # the printed training command works, with either option
    words = done.out.split("--arch transformer_mos ")[1].split(" --finetune-from-model")[0].split()
    assert "--encoder-learned-pos" in words and "--share-all-embeddings" in words
    reset = [f"--reset-{name}" for name in ("optimizer", "lr-scheduler", "meters", "dataloader")]
    for start in (["--finetune-from-model", output], ["--restore-file", output, *reset]):
        more = ["--max-update", 1, "--disable-validation", "--no-save", "--dropout", 0, "--router-dropout", 0]
        how = {"space": source[1], "share": False}
        run = commands.fork("train", *training(joined, tmp_path / "x", *words, *start, *more, **how))
        row = run.rows("train_inner")[0]
        fresh, trained = (float(source[2].rows("train_inner")[number]["nll_loss"]) for number in (0, -1))
        assert int(row["num_updates"]) == 1 and float(row["nll_loss_largest"]) < (fresh + trained) / 2


def test_a_stock_model_in_a_supernets_place(commands, joined, source, tmp_path):
    """Commands that cannot use the model name the command that makes a supernet from it."""
    reset = [f"--reset-{name}" for name in ("optimizer", "lr-scheduler", "meters", "dataloader")]
    for start in (["--finetune-from-model", source[0]], ["--restore-file", source[0], *reset]):
        words = training(joined, tmp_path / "save", *start, space=source[1])
        assert "mos-warm-start" in commands.fork("train", *words, check=False).error()
    done = commands.fork("mos-search", joined, "--path", source[0], "--output", tmp_path / "out", check=False)
    assert "mos-warm-start" in done.error() and not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def idle_first(source, tmp_path_factory):
    """As ``source``; the neurons and heads that the smallest subnet lacks do nothing, and are the first ones."""
    state = torch.load(source[0], weights_only=False)
    for name, value in state["model"].items():
        if name.endswith("fc2.weight"):
            value[:, :24] = 0  # of 32
        elif name.endswith("out_proj.weight"):
            value[:, :12] = 0  # two of four heads
    path = tmp_path_factory.mktemp("idle") / "source.pt"
    torch.save(state, path)
    return path, source[1]


@pytest.mark.parametrize("by_gradient", [False, True])
def test_reordering_keeps_what_counts_in_the_smallest(commands, joined, idle_first, tmp_path, by_gradient):
    data = ["--data", joined, "--valid-subset", "train", "--valid-samples", 60] if by_gradient else []
    # judged on the relevant sentences: a neuron that none of them needs may have any place
    sentences = EvaluationOptions(valid_subset="train", valid_samples=60)
    losses = []
    for options in ([*data], ["--no-reorder"]):
        warm_start(commands, idle_first, tmp_path / "warm.pt", *options, "--mos-routing", "none")
        evaluator = SubnetEvaluator(str(tmp_path / "warm.pt"), str(joined), sentences)
        ends = evaluator.space.largest(), evaluator.space.smallest()
        losses.append([evaluator.evaluate(subnet) for subnet in ends])
    (largest, reordered), (same, unordered) = losses
    assert [same, reordered] == pytest.approx([largest, largest], abs=1e-5)
    assert abs(unordered - largest) > 0.01, losses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--path", "no.pt"], "checkpoint no.pt: no such file"),
        (["--path", "notes.pt"], "notes.pt: the file is truncated"),
        (["--path", "SUPERNET"], "its arch is transformer_mos, but a warm start is from fairseq's transformer"),
        (["--search-space", "lm.yaml"], "for encoder_decoder, encoder_only, the search space is decoder_only"),
        (["--search-space", "tiny"], "encoder_embed_dim of the checkpoint is 24"),
        (["--expert-noise", -1], "expert_noise is -1.0: allowed are numbers from 0"),
        (["--expert-noise", "nan"], "expert_noise is nan: allowed are numbers from 0"),
        (["--num-experts", 0], "num_experts is 0"),
        (["--mos-routing", "none", "--num-experts", 3], "num_experts is 3: it has no effect with mos_routing none"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", "x", "--no-reorder"], "data is given with --no-reorder"),
        (["--output", "no/folder.pt"], "no/folder.pt: cannot be written"),
    ],
)
def test_bad_input(commands, source, supernet, tmp_path, options, message):
    (tmp_path / "notes.pt").write_text("notes")
    (tmp_path / "lm.yaml").write_text(yaml.safe_dump(EVEN_LM_SPACE))
    words = [supernet[0] / "checkpoint_last.pt" if word == "SUPERNET" else word for word in options]
    done = warm_start(commands, source, tmp_path / "out.pt", *words, check=False, cwd=tmp_path)
    assert message in done.error()
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--valid-samples", "7"], "valid_samples is 7: it has no effect without --data"),
        (["--max-tokens", "-1"], "max_tokens is -1: it has no effect without --data"),
        (["--reorder", "--valid-subset", "test"], "valid_subset is test: it has no effect without --data"),
        (["--mos-routing", "none", "--expert-noise", "0.1"], "expert_noise is 0.1: it has no effect with mos_routing"),
        (["--seed", "99999999999999999999999"], "seed is 99999999999999999999999: allowed are whole numbers from 0"),
    ],
)
def test_options_that_are_refused_before_anything_is_read(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        main(["--path", "none.pt", "--search-space", "tiny", "--output", "none/warm.pt", *options])


def test_options_that_supernets_lack(commands, source, tmp_path):
    import mos_fairseq  # noqa: F401

    state = torch.load(source[0], weights_only=True)
    state["cfg"]["model"].no_cross_attention = True
    torch.save(state, tmp_path / "other.pt")
    words = ["--path", tmp_path / "other.pt"]
    assert "no_cross_attention is True" in warm_start(commands, source, tmp_path / "o.pt", *words, check=False).error()


# --- a supernet in another order ---


def test_reordering_in_mid_training(commands, joined, files, tmp_path):
    """Training goes on from the reordered checkpoint, with the moments, where it stopped."""
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(WARM))
    adam = ["--optimizer", "adam_fused", "--disable-validation", "--no-epoch-checkpoints"]
    run = lambda *options: training(joined, tmp_path / "save", *adam, *options, space=tmp_path / "space.yaml")  # noqa: E731
    commands.fork("train", *run("--max-update", 8))
    last, output = tmp_path / "save" / "checkpoint_last.pt", tmp_path / "reordered.pt"
    data = ["--data", joined, "--valid-samples", 12]
    done = commands.fork("mos-warm-start", "--path", last, "--reorder", *data, "--output", output)
    assert "after 8 updates, neurons and heads by importance; with the optimizer's state" in done.out
    before, after = (torch.load(path, weights_only=False) for path in (last, output))
    assert before.keys() == after.keys() and not torch.equal(
        *(state["model"]["encoder.layers.0.fc1.weight"] for state in (before, after))
    )
    evaluators = [
        SubnetEvaluator(str(path), str(joined), EvaluationOptions(valid_samples=12)) for path in (last, output)
    ]
    space = evaluators[0].space
    losses = [[each.evaluate(subnet) for subnet in (space.largest(), space.smallest())] for each in evaluators]
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-5) and losses[0][1] != losses[1][1]
    done = commands.fork("train", *run("--max-update", 10, "--restore-file", output, "--save-dir", tmp_path / "on"))
    assert [int(row["num_updates"]) for row in done.rows("train_inner")] == [9, 10]
    moments = torch.load(tmp_path / "on" / "checkpoint_last.pt", weights_only=False)["last_optimizer_state"]["state"]
    assert max(moment["step"] for moment in moments.values()) == 10


# --- a supernet with experts of low rank ---


def test_a_frozen_supernet_with_experts_of_low_rank(commands, joined, files, tmp_path):
    """From plain weight sharing: what it translates stays, training leaves its weights alone, a subnet is exported."""
    how = {"space": files / "space.yaml"}
    few = ["--max-update", 3, "--disable-validation", "--no-epoch-checkpoints"]
    commands.fork("train", *training(joined, tmp_path / "none", *few, "--mos-routing", "none", **how))
    base, warm = tmp_path / "none" / "checkpoint_last.pt", tmp_path / "warm.pt"
    options = ["--search-space", files / "space.yaml", "--mos-routing", "rank", "--expert-rank", 3]
    done = commands.fork("mos-warm-start", "--path", base, "--output", warm, *options)
    words = done.out.split("--arch transformer_mos ")[1].split()[:-2]
    more = [*words, "--finetune-from-model", warm, "--freeze-shared", "--weight-decay", 0.1, *few]
    commands.fork("train", *training(joined, tmp_path / "rank", *more, share=False, **how))
    last = tmp_path / "rank" / "checkpoint_last.pt"
    before, after = (torch.load(path, weights_only=False)["model"] for path in (base, last))
    for name, value in before.items():
        assert name == "identity" or torch.equal(after[name], value), name
    assert all(after[name].any() for name in after if name.endswith("low_rank.up"))
    subnet = ["--subnet", "smallest"]
    expected = commands.fork("generate", *generation(joined, base, *subnet))
    assert same_translations(
        commands.fork("generate", *generation(joined, warm, *subnet)).found("H"), expected.found("H")
    )
    trained = commands.fork("generate", *generation(joined, last, *subnet)).found("H")
    commands.fork("mos-export", "--path", last, *subnet, "--output", tmp_path / "twin.pt")
    whole = ["--required-batch-size-multiple", 1]
    twin = commands.fork("generate", *generation(joined, tmp_path / "twin.pt", *whole, task="translation"))
    assert same_translations(twin.found("H"), trained)
