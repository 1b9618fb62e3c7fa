"""Checkpoints of earlier versions stay readable, and give the same results.

Version 0.1.0, commit f468d68, made ``tests/golden``: a supernet trained for 40 updates, the export of its smallest
subnet, and the log-probabilities of both. The optimizer's state was left out.
"""

from __future__ import annotations

import json
import multiprocessing
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils, hub_utils
from fairseq.data import LanguagePairDataset

import mos_fairseq  # noqa: F401  registers everything
from mos_fairseq.checkpoints import build_supernet, read_supernet
from mos_fairseq.command import Command
from mos_fairseq.errors import InputError
from mos_fairseq.models import transformer_model
from mos_fairseq.search_space import SearchSpace, resolve_subnet

GOLDEN = Path(__file__).parents[1] / "golden"
SCORES = json.loads((GOLDEN / "scores.json").read_text())


def load(name: str):
    """(model, configuration, task) as fairseq reads them."""
    languages = {"data": str(GOLDEN), "source_lang": "xx", "target_lang": "yy"}
    (model,), cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(GOLDEN / name)], arg_overrides=languages)
    return model.eval(), cfg, task


@torch.no_grad()
def check_scores(model, name: str) -> None:
    source, previous = torch.tensor(SCORES["source"]), torch.tensor(SCORES["previous"])
    found = model(source, source.ne(1).sum(1), previous)[0].log_softmax(-1)
    torch.testing.assert_close(found, torch.tensor(SCORES["log_probabilities"][name]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("read", ["fairseq", "export"])
def test_supernet(read):
    model = load("supernet.pt")[0] if read == "fairseq" else build_supernet(read_supernet(GOLDEN / "supernet.pt"))
    for spec in ("largest", "smallest", "random:3"):
        model.set_active_subnet(resolve_subnet(spec, model.search_space))
        check_scores(model, spec)
    again = load("supernet.pt")[0]
    again.load_state_dict(model.state_dict())  # in today's form


def test_twin():
    model, _, _ = load("twin.pt")
    check_scores(model, "twin")
    widths = [side.embed_positions.embedding_dim for side in (model.encoder, model.decoder)]
    assert widths == [12, 10]  # the supernet's, though the subnet is 8 and 6 wide
    again = load("twin.pt")[0]
    again.load_state_dict(model.state_dict())
    check_scores(again, "twin")


def test_another_space_is_still_refused():
    stored = torch.load(GOLDEN / "supernet.pt", weights_only=False)["model"]
    assert not stored["identity"].is_floating_point()
    space = load("supernet.pt")[0].search_space.dumps().replace("[11,7]", "[11,6]")
    state = read_supernet(GOLDEN / "supernet.pt")
    state["cfg"]["model"]["search_space"] = space
    with pytest.raises(InputError, match=r"encoder_ffn_embed_dim: \[11, 7\] vs \[11, 6\]"):
        build_supernet(state)
    with pytest.raises(InputError, match="name no search space"):
        load("supernet.pt")[0].load_state_dict(load("twin.pt")[0].state_dict())


@pytest.mark.parametrize("printed", [None, "hard"])
def test_commands_that_print_no_alignment_need_no_attention(monkeypatch, printed):
    model, cfg, _ = load("supernet.pt")
    cfg.generation.print_alignment = printed
    model.prepare_for_inference_(cfg)
    assert model.decoder.need_attn  # in a program, which may read it
    monkeypatch.setattr(transformer_model, "calling_command", lambda: Command("generate"))
    model.prepare_for_inference_(cfg)
    assert model.decoder.need_attn == (printed is not None)


def test_whoever_loads_a_checkpoint_chooses_its_subnet():
    given = {"data": str(GOLDEN), "source_lang": "xx", "target_lang": "yy", "subnet": "smallest"}
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(GOLDEN / "supernet.pt")], arg_overrides=given
    )
    assert model.active_subnet == task.search_space.smallest()
    check_scores(model.eval(), "smallest")
    model.set_active_subnet(resolve_subnet("random:3", model.search_space))
    task.build_generator([model], Namespace(beam=2))
    check_scores(model, "random:3")


@pytest.mark.parametrize("recorded", [None, "tiny"])
def test_an_ensemble_of_supernets_of_other_spaces_is_refused(tmp_path, recorded):
    """As what it is: nobody gave a space. A training may have recorded its own."""
    state = torch.load(GOLDEN / "supernet.pt", weights_only=False)
    state["cfg"]["task"]["search_space"] = recorded and str(GOLDEN / "space.yaml")
    torch.save(state, tmp_path / "one.pt")
    space = SearchSpace.from_spec(state["cfg"]["model"]["search_space"]).to_dict()
    state["cfg"]["model"]["search_space"] = SearchSpace.from_dict(space | {"encoder_ffn_embed_dim": [11, 6]}).dumps()
    torch.save(state, tmp_path / "other.pt")
    given = {"data": str(GOLDEN), "source_lang": "xx", "target_lang": "yy"}
    paths = [str(tmp_path / f"{name}.pt") for name in ("one", "other")]
    difference = r"encoder_ffn_embed_dim: \[11, 6\] vs \[11, 7\]"
    with pytest.raises(InputError, match=rf"^path: its supernets have different search spaces .*: {difference}; "):
        checkpoint_utils.load_model_ensemble_and_task(paths, arg_overrides=given)


@pytest.mark.parametrize("subset", ["train", "valid", "test"])
def test_no_sentence_is_left_out_but_in_training(subset):
    _, _, task = load("supernet.pt")
    rows = [torch.tensor([4, 5, 2])] * 13
    task.datasets[subset] = LanguagePairDataset(rows, [3] * 13, task.src_dict, rows, [3] * 13, task.tgt_dict)
    batches = task.get_batch_iterator(task.dataset(subset), max_sentences=16, required_batch_size_multiple=8)
    assert sorted(i for batch in batches.frozen_batches for i in batch) == list(range(13))


def test_another_task_is_told_what_generates(caplog):
    """It has no --subnet, and may leave sentences out."""
    model, cfg, _ = load("supernet.pt")
    model.prepare_for_inference_(cfg)
    assert "generating" not in caplog.text
    cfg.task._name = "translation"
    model.prepare_for_inference_(cfg)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("generating with subnet largest: enc 1x12 ffn 11 ")
    assert "--task translation_mos" in line and "--required-batch-size-multiple 1" in line


@pytest.mark.slow
def test_a_spawned_process_gets_model_task_and_criterion():
    """They can be pickled, also after a forward, which derives weights; a supernet keeps its active subnet."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for name, active in (("supernet.pt", "random:3"), ("twin.pt", "twin")):
            model, cfg, task = load(name)
            criterion = task.build_criterion(cfg.criterion)
            if name == "supernet.pt":
                model.set_active_subnet(resolve_subnet(active, model.search_space))
            check_scores(model, active)
            loss, sizes = pool.submit(loss_of, model, task, criterion).result(timeout=300)
            mine = loss_of(model, task, criterion)
            assert loss == pytest.approx(mine[0], rel=1e-6) and sizes == mine[1]


def loss_of(model, task, criterion) -> tuple[float, list[int]]:
    """Summed loss of the recorded sentences, and the sizes of the dictionaries."""
    source, previous = torch.tensor(SCORES["source"]), torch.tensor(SCORES["previous"])
    inputs = {"src_tokens": source, "src_lengths": source.ne(1).sum(1), "prev_output_tokens": previous}
    with torch.no_grad():
        loss, _, _ = criterion(model, {"net_input": inputs, "target": previous, "ntokens": previous.numel()})
    return float(loss), [len(task.source_dictionary), len(task.target_dictionary)]


def test_a_whole_model_may_be_saved(tmp_path):
    model = load("supernet.pt")[0]
    torch.save(model, tmp_path / "model.pt")
    check_scores(torch.load(tmp_path / "model.pt", weights_only=False), "largest")


@pytest.mark.parametrize("name", ["supernet.pt", "twin.pt"])
def test_hub_tells_alignments_and_attention(name):
    """fairseq's hub interface prepares the model without knowing the later calls."""
    model, cfg, task = load(name)
    hub = hub_utils.GeneratorHubInterface(cfg, task, [model])
    (hypotheses,) = hub.generate([hub.binarize("a b c")], beam=2, print_alignment="hard")
    tokens, attention = hypotheses[0]["tokens"], hypotheses[0]["attention"]
    assert attention.shape == (4, len(tokens))  # three words and the end
    torch.testing.assert_close(attention.sum(0), torch.ones(len(tokens)))
    assert [target for _, target in hypotheses[0]["alignment"]] == list(range(len(tokens) - 1))
