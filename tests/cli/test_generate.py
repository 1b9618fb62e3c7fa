"""fairseq-generate, -interactive and -validate with a chosen subnet."""

from __future__ import annotations

import functools
import itertools
import math
import shutil

import pytest
import torch
from fairseq import checkpoint_utils

import mos_fairseq  # noqa: F401  registers everything
from mos_fairseq.search_space import resolve_subnet

from .conftest import ROOT, USER_DIR, generation, same_translations


@pytest.fixture(scope="module")
def loaded(supernet):
    """(model, task) of the supernet's last checkpoint, in this process."""
    path = str(supernet[0] / "checkpoint_last.pt")
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([path])
    return models[0].eval(), task


@pytest.fixture(scope="module")
def expected(loaded, text):
    """spec -> scores and hypotheses of the subnet's static twin, by a beam search of this file's own."""
    model, task = loaded

    @functools.cache
    def search(spec: str) -> dict[int, list[str]]:
        model.set_active_subnet(resolve_subnet(spec, model.search_space))
        twin, words = model.get_active_subnet(), task.tgt_dict
        sentences = (text / "test.xx").read_text().splitlines()
        tokens = [task.src_dict.encode_line(line, add_if_not_exist=False).long() for line in sentences]
        found = {number: beam_search(twin, src, words) for number, src in enumerate(tokens)}
        # generate prints scores in bits
        return {number: [str(score / math.log(2)), words.string(best)] for number, (score, best) in found.items()}

    return search


@torch.no_grad()
def beam_search(model, source: torch.Tensor, words, beam: int = 2) -> tuple[float, torch.Tensor]:
    """Score and best hypothesis as fairseq defines it: at most 10 words, by score over length, without caches."""
    encoder_out = model.encoder(source[None], src_lengths=torch.tensor([len(source)]))
    alive, finished = [(0.0, [words.eos()])], []
    longest = 10
    for step in range(longest + 1):
        candidates = []
        for score, prefix in alive:
            logits = model.decoder(torch.tensor([prefix]), encoder_out)[0][0, -1]
            lprobs = torch.log_softmax(logits.float(), -1)
            lprobs[words.pad()] = -math.inf
            if step == 0:
                lprobs[words.eos()] = -math.inf
            if step == longest:
                lprobs[: words.eos()], lprobs[words.eos() + 1 :] = -math.inf, -math.inf
            values, tokens = lprobs.topk(2 * beam)
            candidates += [(score + v, [*prefix, t]) for v, t in zip(values.tolist(), tokens.tolist(), strict=True)]
        candidates = sorted(candidates, key=lambda c: -c[0])[: 2 * beam]
        finished += [(s / (step + 1), p) for s, p in candidates[:beam] if p[-1] == words.eos() and s > -math.inf]
        alive = [c for c in candidates if c[1][-1] != words.eos()][:beam]
        if len(finished) >= beam:
            break
    score, best = max(finished[:beam], key=lambda found: found[0])
    return score, torch.tensor(best[1:])


def test_largest_from_the_repository_with_a_relative_user_dir(commands, joined, supernet, expected):
    arguments = generation(joined, supernet[0] / "checkpoint_last.pt", "--user-dir", "mos_fairseq", "--batch-size", 5)
    done = commands.fork("generate", *arguments, cwd=ROOT)
    assert same_translations(done.found("H"), expected("largest"))  # what is generated without --subnet
    assert "generating with subnet largest: enc 2x24" in done.out


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("largest", ["--subnet", "largest", "--batch-size", 1]),
        ("smallest", ["--subnet", "smallest", "--user-dir", USER_DIR + "/"]),
        ("random:7", ["--subnet", "random:7", "--search-space", "FILES/space.yaml"]),
        ("FILES/middle.yaml", ["--subnet", "FILES/middle.yaml", "--max-tokens", 40]),
        ("FILES/middle.yaml", ["--subnet", "FILES/hat.yaml", "--search-space", "FILES/space.yaml"]),
        ("FILES/middle.yaml", ["--subnet", "FILES/hat.yaml"]),
    ],
)
def test_chosen_subnet(commands, joined, supernet, files, tmp_path, expected, spec, options):
    """It works from any folder, with or without --search-space, after the file used in training is gone."""
    options = [str(option).replace("FILES", str(files)) for option in options]
    done = commands.fork("generate", *generation(joined, supernet[0] / "checkpoint_last.pt", *options), cwd=tmp_path)
    assert same_translations(done.found("H"), expected(spec.replace("FILES", str(files))))


def test_subnets_and_sentences_differ(expected):
    """The comparisons can distinguish subnets."""
    found = [expected(spec) for spec in ("largest", "smallest", "random:7")]
    assert not any(same_translations(one, other) for one, other in itertools.combinations(found, 2))
    assert all(len({round(float(score), 3) for score, _ in lines.values()}) > 6 for lines in found)


@pytest.mark.slow
def test_interactive_reads_stdin(commands, joined, supernet, text, expected):
    lines = (text / "test.xx").read_text()
    options = ["--subnet", "smallest", "-s", "xx", "-t", "yy", "--buffer-size", 4, "--batch-size", 3]
    arguments = generation(joined, supernet[0] / "checkpoint_last.pt", *options)
    done = commands.spawn("interactive", *arguments, stdin=lines)
    assert same_translations(done.found("H"), expected("smallest"))


def test_alignment_and_replacing_unknown_words(commands, joined, supernet, text, tmp_path, expected):
    """--replace-unk wants raw text, and '' for no dictionary: without a value fairseq opens its own default, '@@ '.

    (There is no unknown word to replace here: at the first, fairseq 0.12.3 stops with an IndexError.)
    """
    for name in ("dict.xx.txt", "dict.yy.txt"):
        shutil.copy(joined / name, tmp_path)
    for language in ("xx", "yy"):
        shutil.copy(text / f"test.{language}", tmp_path / f"test.xx-yy.{language}")
    options = ["--print-alignment", "--replace-unk", "", "--dataset-impl", "raw", "--subnet", "smallest"]
    done = commands.fork("generate", *generation(tmp_path, supernet[0] / "checkpoint_last.pt", *options))
    hypotheses = done.hypotheses()
    assert same_translations(done.found("H"), expected("smallest"))
    assert not any("<unk>" in line for line in hypotheses.values())
    for number, (pairs,) in done.found("A").items():
        source, target = zip(*(map(int, pair.split("-")) for pair in pairs.split()), strict=True)
        assert list(target) == list(range(len(hypotheses[number].split())))
        assert max(source) < len(done.found("S")[number][0].split())


def test_validate_other_subnets(commands, joined, supernet):
    save_dir, trained = supernet
    arguments = [joined, "--user-dir", USER_DIR, "--task", "translation_mos", "--path", save_dir / "checkpoint_last.pt"]
    # the batches of training: BLEU is of hypotheses, and others' rounding may choose another one
    options = ["--max-tokens", 160, "--log-format", "json", "--valid-subnets", "random:7,largest,random:9"]
    row = commands.fork("validate", *arguments, *options).rows("valid")[-1]
    last = trained.rows("valid")[-1]
    for key in ("loss_random7", "nll_loss_largest", "bleu_largest", "bleu_random7"):
        assert float(row[f"valid_{key}"]) == pytest.approx(float(last[f"valid_{key}"]), abs=0.002), key
    assert "valid_loss_random9" in row and "valid_loss_smallest" not in row
    row = commands.fork("validate", *arguments, *options[:4], "--subnet", "smallest").rows("valid")[-1]
    assert float(row["valid_loss_smallest"]) == pytest.approx(float(last["valid_loss_smallest"]), abs=0.002)
    assert row["valid_loss"] == row["valid_loss_smallest"] and "valid_loss_largest" not in row
