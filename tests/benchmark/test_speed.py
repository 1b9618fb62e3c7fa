"""The variants of mos-benchmark are comparable, and its figures are correct."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mos_fairseq.benchmark import (
    SUITES,
    Section,
    SpeedOptions,
    Variants,
    memory,
    plot_suite,
    run_suite,
    suites,
    timing,
)
from mos_fairseq.cost import CostOptions, subnet_cost
from mos_fairseq.errors import InputError
from mos_fairseq.search_space import SearchSpace
from tests.pretend_cuda import pretend_cuda

SPACE = {
    "encoder_embed_dim": [24, 12],
    "decoder_embed_dim": [24, 12],
    "encoder_layers": [2],
    "decoder_layers": [2, 1],
    "encoder_ffn_embed_dim": [33, 17],
    "encoder_attention_heads": [4, 2],
    "decoder_ffn_embed_dim": [37, 19],
    "decoder_attention_heads": [2],
    "decoder_ende_attention_heads": [2, 1],
    "decoder_arbitrary_ende_attn": [-1, 2],
    "qkv_dim": 36,
}


@pytest.fixture
def variants() -> Variants:
    options = SpeedOptions(vocab_size=40, tokens=40, length=8, threads=1, repeats=2)
    return Variants(SearchSpace.from_dict(SPACE), options)


def size(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_stock_fairseq_has_the_same_sizes(variants):
    stock, ours = variants.stock(), variants.supernet("none", space=variants.stock_space)
    cost = subnet_cost(variants.stock_space.largest(), CostOptions(vocab_size=40, share_all_embeddings=True))
    assert size(stock) == size(ours) == cost.params
    assert len(stock.encoder.layers) == 2 and stock.decoder.layers[1].fc1.out_features == 37
    assert stock.encoder.layers[0].self_attn.num_heads == 4 and stock.decoder.layers[0].encoder_attn.num_heads == 2


def test_sides_that_stock_fairseq_cannot_express_are_refused():
    space = SearchSpace.from_dict(SPACE | {"decoder_embed_dim": [28]})
    with pytest.raises(InputError, match="decoder_embed_dim is 28 at most"):
        _ = Variants(space, SpeedOptions()).stock_space
    heads = SearchSpace.from_dict(SPACE | {"decoder_ende_attention_heads": [4]})
    with pytest.raises(InputError, match="decoder_ende_attention_heads is 4"):
        _ = Variants(heads, SpeedOptions()).stock_space


def test_batches_are_padded_as_fairseq_does(variants):
    sample = variants.batch()
    source, target = sample["net_input"]["src_tokens"], sample["target"]
    assert source.shape == target.shape == (6, 8) == sample["net_input"]["prev_output_tokens"].shape
    assert sample["ntokens"] == int(target.ne(1).sum()) and sample["nsentences"] == 6
    for row, length in zip(source, sample["net_input"]["src_lengths"], strict=True):
        assert 6 <= length <= 8 and row[-length:].ne(1).all() and row[:-length].eq(1).all()
    assert target.eq(2).sum() == 6 and torch.equal(sample["net_input"]["prev_output_tokens"][:, 1:], target[:, :-1])
    assert len(variants.batch(400)["target"]) == 57


@pytest.mark.parametrize("optimizer", [None, "adam", "adam_fused"])
def test_a_training_step_trains(variants, optimizer):
    model = variants.supernet("neuron")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    variants.training_step(model, optimizer)()
    assert all(parameter.grad is not None for parameter in model.parameters())
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert bool(moved) == (optimizer is not None)


@pytest.mark.parametrize("precision", ["amp", "bf16"])
@pytest.mark.parametrize("kind", ["stock", "neuron"])
def test_a_training_step_in_half_precision_trains(variants, kind, precision):
    """The parameters of --bf16 are those that its fp32 copies round to; under autocast they stay in fp32."""
    model = variants.stock() if kind == "stock" else variants.supernet(kind)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step = variants.training_step(model, "adam_fused", precision=precision)
    for _ in range(3):
        step()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for name, parameter in model.named_parameters():
        assert parameter.dtype == parameter.grad.dtype == dtype and parameter.isfinite().all()
        torch.testing.assert_close(parameter.detach().float(), before[name], rtol=0.01, atol=0.01)
    assert any(not torch.equal(p.float(), before[name]) for name, p in model.named_parameters())


def test_work_on_a_gpu_is_timed_by_its_events():
    with pretend_cuda(), timing.timed_on("cuda:0"):
        seen = []
        event = torch.cuda.Event

        class Told(event):
            def synchronize(self):
                seen.append("synchronize")

            def elapsed_time(self, later):
                return 1500.0

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "Event", Told)
            found = timing.in_turn({"a": lambda: seen.append("work")}, rounds=2, warmup=0)
    assert found == {"a": [1.5, 1.5]} and seen == ["work", "synchronize"] * 2
    assert timing.in_turn({"a": lambda: seen.append("work")}, rounds=1)["a"] != [1.5]


@pytest.mark.slow
def test_more_sentences_at_once(variants, monkeypatch):
    monkeypatch.setattr(suites, "BATCHES", (1, 3))
    sections = list(run_suite("batches", variants))
    assert [s.title for s in sections] == [f"translation, beam {b}, batch {n}" for b in (1, 5) for n in (1, 3)]
    assert sections[1].tokens == 24 and list(sections[1].seconds) == [suites.STOCK, "static twin"]


def test_a_translation_has_the_length_asked_for(variants):
    for model in (variants.stock(), variants.supernet("none")):
        found = variants.translation(model, 2, 3)()
        assert [len(sentence[0]["tokens"]) for sentence in found] == [8, 8, 8]


def test_variants_run_in_turn_and_the_first_rounds_do_not_count(monkeypatch):
    clock, order, pauses = iter(range(1000)), [], []
    fake = SimpleNamespace(perf_counter=lambda: float(next(clock)), sleep=pauses.append)
    monkeypatch.setattr(timing, "time", fake)
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = timing.in_turn(calls, rounds=3, warmup=2, pause=0.25)
    assert "".join(order) == "abcbcacababcbca" and pauses == 15 * [0.25]
    assert all(len(values) == 3 for values in seconds.values())


def test_ratios_are_paired():
    seconds = {"base": [1.0, 10.0, 2.0], "other": [2.0, 20.0, 6.0]}
    base, other = Section("title", seconds, "base", tokens=100, targets={"other": 1.5}).rows()
    assert base == {"variant": "base", "median_ms": 2000.0, "quartiles_ms": [1500.0, 6000.0], "tokens_per_second": 50.0}
    assert other["ratio"] == 2.0 and other["interval"] == [2.0, 3.0] and other["target"] == 1.5


@pytest.mark.slow
def test_memory_of_a_process_of_its_own(variants, monkeypatch):
    assert 2**20 < memory._measure(variants, "layer") < 2**30
    found = {"stock": 8, "none as stock": 4, "none": 100, "layer": 110, "neuron": 130}
    noise = (value for number in (2, 3) for value in (0, 3, -3) for _ in range(number))  # the median of three counts
    monkeypatch.setattr(memory, "_measure", lambda _, name: (found[name] + next(noise)) * 2**20)
    first, second = (section.rows() for section in run_suite("memory", variants))
    expected = [row.pop("expected_mib") for row in (*first, *second)]
    assert expected[0] == expected[1] and expected[2] < expected[3] < expected[4] < 2  # by formula
    counted = [row.pop("parameters") for row in (*first, *second)]
    assert counted[0] == counted[1] and counted[2] < counted[3] < counted[4] == size(variants.supernet("neuron"))
    assert first[1] == {"variant": "none as stock", "peak_mib": 4.0, "ratio": 0.5}
    assert second[2] == {"variant": "neuron", "peak_mib": 130.0, "ratio": 1.3, "target": 1.4}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture", "search"])
def test_suites_run_and_are_drawn(variants, name, tmp_path):
    rounds: list[int] = []
    sections = list(run_suite(name, variants, lambda: rounds.append(1)))
    assert sections and rounds
    for section in sections:
        text = json.dumps(section.to_dict())
        assert section.base in text and np.isfinite([row["median_ms"] for row in section.rows()]).all()
    plot_suite(name, sections, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_tokens_per_second_are_of_the_tokens_there_are(variants, monkeypatch):
    """Sections of another batch than asked for, of whole sentences, have its own number."""
    monkeypatch.setattr(suites, "in_turn", lambda calls, *_: dict.fromkeys(calls, [0.5, 0.5]))
    titles = (section for section in suites.train(variants, lambda: None) if "forward and backward of" in section.title)
    for section, _ in zip(titles, range(2), strict=False):
        tokens = int(section.title.removesuffix(" tokens").rpartition(" ")[2])
        assert [row["tokens_per_second"] for row in section.rows()] == [2 * tokens] * 2


def test_fresh_memory_does_not_count(variants, monkeypatch):
    """The second update of a process still allocates new pages, and a variant with more parameters allocates more."""
    seen = []
    monkeypatch.setattr(suites, "in_turn", lambda steps, rounds, warmup=1, on_round=None: seen.append(warmup) or {})
    list(run_suite("train", variants))
    assert len(seen) >= 9 and set(seen) == {2}


def test_ctranslate2_with_one_thread_and_with_all(variants, monkeypatch):
    """More than one may slow it down."""
    ctranslate2, used = pytest.importorskip("ctranslate2"), []
    monkeypatch.setattr(suites, "in_turn", lambda calls, *_, **__: {name: [1.0] for name in calls})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(ctranslate2, "Translator", lambda _, intra_threads, **__: used.append(intra_threads))
    titles = [section.title for section in run_suite("decode", variants) if "CTranslate2" in section.title]
    assert [title[-11:] for title in titles] == ["threads: 1)", "threads: 2)"] and used == [1, 1, 2, 2]


def test_widths_scale_with_the_space(variants):
    ranked = Variants(SearchSpace.from_dict(SPACE | {"decoder_ffn_rank": [9, 4]}), SpeedOptions())
    assert ranked.scaled(2.0)["decoder_ffn_rank"] == (18, 8) and "decoder_ffn_rank" not in ranked.stock_space.values
    twice = variants.scaled(2.0)
    assert twice.max("encoder_embed_dim") == 48 and twice.max("decoder_ffn_embed_dim") == 74
    assert twice.largest().encoder_attention_heads == (4, 4) and twice.to_dict()["qkv_dim"] == 72
    section = suites._by_width(variants, "half", 0.5, lambda: None)  # 18 columns are not for 4 heads
    assert section.rows() == [] and "18" in section.skipped["neuron"]
    section = suites._by_width(variants, "twice", 2.0, lambda: None)
    assert [row["variant"] for row in section.rows()] == ["none", "neuron"]


def test_what_cannot_be_compiled_is_skipped(variants, monkeypatch):
    def compile_(function, dynamic):
        def refuse(*args, **kwargs):
            raise RuntimeError("no working C++ compiler\nfound")

        return refuse if "Layer" in type(function.__self__).__name__ else function

    monkeypatch.setattr(torch, "compile", compile_)
    (section,) = run_suite("compile", variants)
    assert list(section.seconds) == ["static twin", "compiled encoder"]
    assert section.skipped == {"compiled encoder and decoder layers": "no working C++ compiler"}


def test_every_suite_has_a_name():
    assert list(SUITES) == ["train", "decode", "memory", "mixture", "search", "compile", "precision", "batches", "rank"]


@pytest.mark.parametrize(("name", "value"), [("tokens", 0), ("repeats", 1), ("threads", 0), ("vocab_size", 5)])
def test_bad_options(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}: allowed are whole numbers from"):
        SpeedOptions(**{name: value})
