"""The suites of ``mos-benchmark``: updates, translation, merging experts, judging candidates, memory, torch.compile."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from mos_fairseq.benchmark.memory import memory_section, memory_sections
from mos_fairseq.benchmark.options import SUITES
from mos_fairseq.benchmark.timing import Section, in_turn, timed_on
from mos_fairseq.benchmark.variants import LOW_RANK, Variants
from mos_fairseq.errors import InputError
from mos_fairseq.export import save_ctranslate2
from mos_fairseq.models import TransformerMosModel, TransformerSubnetModel
from mos_fairseq.search_space import Subnet, resolve_subnet

STOCK = "stock transformer"
ROUTINGS = ("none", "layer", "neuron")
EXPERTS = (1, 2, 4, 8)
PRECISIONS = ("fp32", "amp", "bf16")
BATCHES = (1, 4, 16, 64, 256)
_WARMUP = 2  # updates until a process's memory stops growing: new pages take half of the second update
_ASLEEP = 0.3  # seconds until CTranslate2's OpenMP threads stop their busy waiting
_OnRound = Callable[[], object]


def train(variants: Variants, on_round: _OnRound) -> Iterator[Section]:
    """Compare updates: with stock fairseq, between routings, and their growth with tokens, width and experts."""
    rounds, tokens = variants.options.repeats, variants.batch()["ntokens"]
    same_sizes = {
        STOCK: variants.training_step(variants.stock(), "adam"),
        "none": variants.training_step(variants.supernet("none", space=variants.stock_space), "adam"),
        "none, adam_fused": variants.training_step(variants.supernet("none", space=variants.stock_space), "adam_fused"),
    }
    yield Section(
        "update of the largest subnet, in stock fairseq's sizes",
        in_turn(same_sizes, rounds, _WARMUP, on_round),
        STOCK,
        tokens,
        targets={"none": 0.95, "none, adam_fused": 0.95},
    )
    del same_sizes
    models = {routing: variants.supernet(routing) for routing in ROUTINGS}
    for spec in ("largest", "random:1"):
        for optimizer in ("adam", "adam_fused"):
            steps = {n: variants.training_step(m, optimizer) for n, m in models.items()}
            _activate(models, resolve_subnet(spec, variants.space))
            title = f"update of subnet {spec}, {optimizer}"
            yield Section(title, in_turn(steps, rounds, _WARMUP, on_round), "none", tokens, {"neuron": 1.03})
    _activate(models, variants.space.largest())
    for number in (tokens // 4, 4 * tokens):
        steps = {n: variants.training_step(models[n], None, number) for n in ("none", "neuron")}
        there = variants.batch(number)["ntokens"]  # whole sentences, about as many tokens as asked for
        title = f"forward and backward of {there} tokens"
        yield Section(title, in_turn(steps, max(2, rounds // 2), _WARMUP, on_round), "none", there)
    del models
    for name, factor in (("half", 0.5), ("twice", 2.0)):
        yield _by_width(variants, f"forward and backward at {name} the width", factor, on_round)
    steps = {"none": variants.training_step(variants.supernet("none"), None)}
    for number in EXPERTS:
        steps[f"neuron, {number} experts"] = variants.training_step(variants.supernet("neuron", number), None)
    yield Section(
        "forward and backward by number of experts",
        in_turn(steps, max(2, rounds // 2), _WARMUP, on_round),
        "none",
        tokens,
    )


def _by_width(variants: Variants, title: str, factor: float, on_round: _OnRound) -> Section:
    names, tokens = ("none", "neuron"), variants.batch()["ntokens"]
    try:
        space = variants.scaled(factor)
    except InputError as error:
        return Section(title, {}, "none", tokens, skipped=dict.fromkeys(names, str(error)))
    steps = {name: variants.training_step(variants.supernet(name, space=space), None) for name in names}
    return Section(title, in_turn(steps, max(2, variants.options.repeats // 2), _WARMUP, on_round), "none", tokens)


def _activate(models: dict[str, TransformerMosModel], subnet: Subnet) -> None:
    for model in models.values():
        model.set_active_subnet(subnet)


def decode(variants: Variants, on_round: _OnRound) -> Iterator[Section]:
    """Compare translation: static twins with stock fairseq, active subnets with their twins, and with CTranslate2."""
    rounds, length = variants.options.repeats, variants.options.length
    stock, same = variants.stock(), variants.supernet("none", space=variants.stock_space).get_active_subnet()
    for beam, batch in ((1, 1), (2, 1), (5, 1), (10, 1), (5, 32)):
        some = rounds if batch == 1 else max(2, rounds // 3)
        calls = {n: variants.translation(m, beam, batch) for n, m in ((STOCK, stock), ("static twin", same))}
        times = in_turn(calls, some, on_round=on_round)
        title = f"translation in stock fairseq's sizes, beam {beam}, batch {batch}"
        yield Section(title, times, STOCK, batch * length, {"static twin": 0.90} if beam == 5 else {})
    del stock
    for number in sorted({1, torch.get_num_threads()}):
        yield _ctranslate2(variants, same, number, on_round)
    del same
    model = variants.supernet("neuron")
    for spec in ("largest", "smallest"):
        model.set_active_subnet(resolve_subnet(spec, variants.space))
        twin = model.get_active_subnet()
        for beam in (1, 5):
            pairs = (("static twin", twin), ("active subnet", model))
            calls = {name: variants.translation(m, beam, 1) for name, m in pairs}
            times = in_turn(calls, 2 * rounds, on_round=on_round)
            title = f"translation with subnet {spec} of a neuron-wise supernet, beam {beam}, batch 1"
            yield Section(title, times, "static twin", length, {"active subnet": 1.02})


def _ctranslate2(variants: Variants, twin: TransformerSubnetModel, threads: int, on_round: _OnRound) -> Section:
    """Compare the twin in PyTorch with CTranslate2, in the model's own precision and quantised to int8.

    CTranslate2 gets its own number of threads: more than one can slow down a small model, and PyTorch beside it.
    """
    calls = {"static twin": variants.translation(twin, 5, 1)}
    skipped = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, quantization in (("CTranslate2", None), ("CTranslate2 int8", "int8")):
            if variants.options.device != "cpu":
                skipped[name] = "this comparison runs on a CPU only"
                continue
            try:
                import ctranslate2
            except ImportError:
                skipped[name] = "the package ctranslate2 is not installed"
                continue
            path = Path(folder) / f"{quantization}"
            save_ctranslate2(twin, (variants.words.symbols, variants.words.symbols), path, quantization)
            translator = ctranslate2.Translator(str(path), intra_threads=threads, inter_threads=1)
            calls[name] = _translation_ctranslate2(variants, translator)
        times = in_turn(calls, variants.options.repeats, on_round=on_round, pause=_ASLEEP)
        calls.clear()
    title = f"translation, beam 5, batch 1, in PyTorch and in CTranslate2 (its threads: {threads})"
    return Section(title, times, "static twin", variants.options.length, {"CTranslate2 int8": 0.5}, skipped)


def _translation_ctranslate2(variants: Variants, translator) -> Callable[[], object]:
    tokens = variants.sources(1)["net_input"]["src_tokens"][0, :-1]
    source, length = [[variants.words[int(token)] for token in tokens]], variants.options.length - 1
    return lambda: translator.translate_batch(
        source, beam_size=5, min_decoding_length=length, max_decoding_length=length
    )


def mixture(variants: Variants, on_round: _OnRound) -> Iterator[Section]:
    """Measure what choosing a subnet costs before its first forward: routers, and merging, by number of experts."""
    rounds = variants.options.repeats
    sentence = variants.sources(1)["net_input"]["src_tokens"]
    model = variants.supernet("neuron").eval()
    for spec in ("largest", "random:1", "smallest"):
        subnet = resolve_subnet(spec, variants.space)
        model.set_active_subnet(subnet)
        twin = model.get_active_subnet()
        calls = {
            f"encoder forward of {variants.options.length} tokens": _encoding(twin, sentence),
            "set_active_subnet and merge": _merging(model, subnet),
        }
        times = in_turn(calls, 2 * rounds, on_round=on_round)
        base = next(iter(calls))
        yield Section(f"choosing subnet {spec}", times, base, targets={"set_active_subnet and merge": 1.0})
    del model
    models = {f"{number} experts": variants.supernet("neuron", number).eval() for number in EXPERTS}
    calls = {name: _merging(model, variants.space.largest()) for name, model in models.items()}
    yield Section("choosing the largest subnet", in_turn(calls, rounds, on_round=on_round), "1 experts")


def _encoding(model: nn.Module, tokens: torch.Tensor) -> Callable[[], object]:
    @torch.inference_mode()
    def run() -> object:
        return model.encoder(tokens)

    return run


def _merging(model: TransformerMosModel, subnet: Subnet) -> Callable[[], object]:
    @torch.inference_mode()
    def run() -> None:
        model.set_active_subnet(subnet)
        for side in (model.encoder, model.decoder):
            for layer in side.layers[: side.num_active_layers]:
                layer.materialize()

    return run


def search(variants: Variants, on_round: _OnRound) -> Iterator[Section]:
    """Measure one candidate of a search: activating it, and one forward pass for its loss on a batch."""
    calls = {}
    sample = variants.batch(4 * variants.options.tokens)
    for routing in ROUTINGS:
        calls[routing] = _judging(variants.supernet(routing).eval(), sample, variants)
    times = in_turn(calls, variants.options.repeats, on_round=on_round)
    yield Section(f"judging a random candidate on {sample['ntokens']} tokens", times, "none", sample["ntokens"])


def _judging(model: TransformerMosModel, sample: dict, variants: Variants) -> Callable[[], object]:
    draws = iter(range(10**9))

    @torch.inference_mode()
    def run() -> float:
        model.set_active_subnet(variants.space.sample_subnet("benchmark", next(draws)))
        logits, target = model(**sample["net_input"])[0], sample["target"]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=1).item()

    return run


def compiled(variants: Variants, on_round: _OnRound) -> Iterator[Section]:
    """Compare translation with a static twin as it is, and with parts of it compiled by ``torch.compile``."""

    def twin() -> TransformerSubnetModel:
        return variants.supernet("none", space=variants.stock_space).get_active_subnet()

    calls, skipped = {"static twin": variants.translation(twin(), 5, 1)}, {}
    for name, with_decoder in (("compiled encoder", False), ("compiled encoder and decoder layers", True)):
        compiled_twin = twin()
        for module in (compiled_twin.encoder, *(compiled_twin.decoder.layers if with_decoder else ())):
            module.forward = torch.compile(module.forward, dynamic=True)  # lengths grow
        call = variants.translation(compiled_twin, 5, 1)
        try:
            with torch._dynamo.config.patch(recompile_limit=64):  # all layers share one code object
                call()
        except RuntimeError as error:  # for example, no C++ compiler
            skipped[name] = next(iter(str(error).strip().splitlines()), type(error).__name__)
            continue
        calls[name] = call
    times = in_turn(calls, variants.options.repeats, on_round=on_round)
    title = "translation with torch.compile, beam 5, batch 1"
    yield Section(title, times, "static twin", variants.options.length, skipped=skipped)


def precision(variants: Variants, on_round: _OnRound) -> Iterator[Section]:
    """Compare updates in fp32, under autocast and in bf16, in stock fairseq's sizes, all with the same optimizer."""
    for kind in PRECISIONS:
        models = {STOCK: variants.stock()}
        models |= {name: variants.supernet(name, space=variants.stock_space) for name in ("none", "neuron")}
        for number in (variants.options.tokens, 4 * variants.options.tokens):
            steps = {name: variants.training_step(m, "adam_fused", number, kind) for name, m in models.items()}
            title, tokens = f"update in {kind}, {number} tokens", variants.batch(number)["ntokens"]
            times = in_turn(steps, variants.options.repeats, _WARMUP, on_round)
            yield Section(title, times, STOCK, tokens, targets={"none": 1.0})


def batches(variants: Variants, on_round: _OnRound) -> Iterator[Section]:
    """Measure translation with growing batches; on a GPU, also in half precision."""
    stock = variants.stock()
    twin = variants.supernet("none", space=variants.stock_space).get_active_subnet()
    models = {STOCK: stock, "static twin": twin}
    if variants.options.device != "cpu":
        models |= {f"{name}, fp16": copy.deepcopy(model).half() for name, model in models.items()}
    for beam in (1, 5):
        for number in BATCHES:
            calls = {name: variants.translation(model, beam, number) for name, model in models.items()}
            times = in_turn(calls, max(2, variants.options.repeats // 3), on_round=on_round)
            title, tokens = f"translation, beam {beam}, batch {number}", number * variants.options.length
            yield Section(title, times, STOCK, tokens, targets={"static twin": 1.0})


def rank(variants: Variants, on_round: _OnRound) -> Iterator[Section]:
    """Updates with experts of low rank against plain weight sharing and full experts; their memory and parameters."""
    names = ("none", "layer", *LOW_RANK)
    wanted = [name for name in LOW_RANK if name in ("layer, R 8", "rank, R 8")]
    models = {name: variants.supernet(name) for name in names}
    steps = {name: variants.training_step(model, "adam_fused") for name, model in models.items()}
    tokens = variants.batch()["ntokens"]
    for spec in ("largest", "random:1"):
        _activate(models, resolve_subnet(spec, variants.space))
        times = in_turn(steps, variants.options.repeats, _WARMUP, on_round)
        yield Section(f"update of subnet {spec}, adam_fused", times, "none", tokens, dict.fromkeys(wanted, 1.02))
    del models, steps
    yield memory_section(variants, on_round, "peak memory of updates", names, dict.fromkeys(wanted, 1.08))


_SUITES: dict[str, Callable[[Variants, _OnRound], Iterator[Section]]] = dict(
    zip(SUITES, (train, decode, memory_sections, mixture, search, compiled, precision, batches, rank), strict=True)
)


def run_suite(name: str, variants: Variants, on_round: _OnRound = lambda: None) -> Iterator[Section]:
    """Yield the sections of one suite as they finish.

    Args:
        name: one of ``SUITES``.
        on_round: called after each round of each section.
    """
    if variants.options.threads is not None:
        torch.set_num_threads(variants.options.threads)
    with timed_on(variants.options.device):
        yield from _SUITES[name](variants, on_round)
