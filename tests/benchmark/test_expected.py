"""The formula of an update's memory, against the tensors that there are."""

from __future__ import annotations

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from mos_fairseq.benchmark import SpeedOptions, TrainingBatch, Variants, expected_bytes, kept_weights
from mos_fairseq.modules import kernels
from mos_fairseq.search_space import SearchSpace, Subnet
from tests.benchmark.test_speed import SPACE

# large enough that the terms that grow with sizes dominate
SIZES = {
    "encoder_embed_dim": [192, 96],
    "decoder_embed_dim": [128],
    "encoder_ffn_embed_dim": [384],
    "decoder_ffn_embed_dim": [320, 64],
    "qkv_dim": 144,
}
RANKS = {"encoder_ffn_rank": [96], "decoder_ffn_rank": [80]}


def peak_of(variants: Variants, subnet: Subnet, routing: str) -> int:
    """Bytes of all tensors at most, in an update; Adam's moments are two tensors of each parameter."""
    model = variants.supernet(routing)
    model.set_active_subnet(subnet)
    step = variants.training_step(model, None)
    step()
    tracker = MemTracker()
    tracker.track_external(model)
    with tracker:
        step()
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    return peak + 8 * variants.num_parameters(routing)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("routing", "vocab_size", "tokens", "ranks"),
    [
        ("none", 40, 800, {}),
        ("layer", 40, 800, {}),
        ("neuron", 40, 800, {}),
        ("none", 3000, 400, {}),
        ("neuron", 3000, 30, {}),
        ("none", 40, 800, RANKS),
        ("layer", 40, 400, RANKS),
    ],
    ids=lambda value: "rank" if value == RANKS else str(value or ""),
)
def test_the_formula_is_about_what_there_is(use_kernels, routing, vocab_size, tokens, ranks):
    use_kernels()
    options = SpeedOptions(vocab_size=vocab_size, tokens=tokens, length=20, threads=1, repeats=2)
    variants = Variants(SearchSpace.from_dict(SPACE | SIZES | ranks), options)
    sample = variants.batch()
    batch = TrainingBatch(sample["net_input"]["src_tokens"].numel(), sample["target"].numel(), vocab_size)
    subnet = variants.space.largest()
    kept = 0 if routing == "none" else kept_weights(subnet, kernels.policy().remade_mixture)
    expected = expected_bytes(variants.num_parameters(routing), subnet, batch, kept)
    assert peak_of(variants, subnet, routing) == pytest.approx(expected, rel=0.12)


def test_what_counts():
    space = SearchSpace.from_dict(SPACE | SIZES)
    large, small = space.largest(), space.smallest()
    batch = TrainingBatch(1000, 900, 50)
    assert expected_bytes(0, small, batch) < expected_bytes(0, large, batch)
    more = {"accumulating": TrainingBatch(1000, 900, 50, accumulating=True), "states": batch}
    assert expected_bytes(10, large, more["accumulating"]) - expected_bytes(10, large, batch) == 40
    for precision, each in (("fp32", 12), ("amp", 12), ("fp16", 14), ("bf16", 14)):
        kind = TrainingBatch(1000, 900, 50, precision=precision)
        assert expected_bytes(10, large, kind) - expected_bytes(0, large, kind) == 10 * each
        assert expected_bytes(0, large, kind) <= expected_bytes(0, large, batch)
    on_gpu = TrainingBatch(1000, 900, 50, on_gpu=True)
    without = TrainingBatch(1000, 900, 50, has_dropout=False)
    assert expected_bytes(0, large, without) < expected_bytes(0, large, on_gpu) < expected_bytes(0, large, batch)
    # few tokens: all gradients at the end of the backward pass are the peak
    assert expected_bytes(10**6, large, TrainingBatch(1, 1, 50)) == 16 * 10**6 + 2 * 50 * 192 * 4
    assert kept_weights(large, 10**9) == 2 * (2 * 192 * 384 + 2 * 128 * 320) and kept_weights(large, 1) == 0
