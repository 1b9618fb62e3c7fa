"""Outputs depend neither on padding nor on the rest of the batch; spans of shallow encoders; incremental decoding."""

import pytest
import torch
from torch.nn.functional import pad as pad_tensor

from mos_fairseq.search_space import SearchSpace, Subnet
from tests.helpers import batch, decode_stepwise, small_space, supernet
from tests.spaces import HEAD_DIM_SPACE, SMALL_SPACE

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
LENGTHS = ((6, 5), (4, 7), (7, 3))
NORMS = {"encoder_normalize_before": True, "decoder_normalize_before": True}


def with_span(span: int, encoder_layers: int) -> Subnet:
    values = small_space().largest().to_dict() | {"encoder_layers": encoder_layers, "decoder_arbitrary_ende_attn": span}
    return Subnet.from_dict(values)


@torch.no_grad()
def logits(model, src, prev) -> torch.Tensor:
    return model(src, src.ne(1).sum(1), prev)[0]


@pytest.mark.parametrize("encoder_layers", [1, 3])
@pytest.mark.parametrize("span", [-1, 1, 2])
def test_padding_and_company_do_not_matter(span, encoder_layers):
    model = supernet(mos_routing="layer", **NORMS).eval()
    model.set_active_subnet(with_span(span, encoder_layers))
    src, prev, _ = batch(LENGTHS)
    right = batch(LENGTHS, left_pad_source=False)[0]
    assert not torch.equal(src, right)
    variants = {
        "left": logits(model, src, prev),
        "right": logits(model, right, prev),
        "more left": logits(model, pad_tensor(src, (3, 0), value=1), pad_tensor(prev, (0, 2), value=1)),
        "more right": logits(model, pad_tensor(right, (0, 4), value=1), prev),
        "reversed": logits(model, src.flip(0), prev.flip(0)).flip(0),
    }
    for row, (s, t) in enumerate(LENGTHS):
        alone = logits(model, right[row : row + 1, :s], prev[row : row + 1, :t])[0]
        for name, batched in variants.items():
            torch.testing.assert_close(batched[row, :t], alone, **TOLERANCE, msg=f"{name}, sentence {row}")


@pytest.mark.parametrize("encoder_layers", [1, 3])
@pytest.mark.parametrize(("span", "wanted"), [(-1, 1), (1, 2), (2, 3)])
def test_encoder_outputs_are_distinct_and_the_mask_repeats_with_them(span, wanted, encoder_layers):
    model = supernet(**NORMS).eval()
    model.set_active_subnet(with_span(span, encoder_layers))
    src, prev, _ = batch(LENGTHS)
    count = min(wanted, encoder_layers)
    seen = []
    for layer in model.decoder.layers:
        layer.encoder_attn.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append((args[1], kwargs["mask"])), with_kwargs=True
        )
    with torch.no_grad():
        encoder_out = model.encoder(src, return_all_hiddens=True)
        model.decoder(prev, encoder_out)
    outputs, states = encoder_out["encoder_out"], encoder_out["encoder_states"]
    assert len(outputs) == count and len(states) == encoder_layers + 1
    for i, output in enumerate(outputs):
        torch.testing.assert_close(output, model.encoder.layer_norm(states[-1 - i]))
        assert not any(torch.allclose(output, other) for other in outputs[:i])
    assert len(seen) == 3
    for memory, mask in seen:
        assert memory.shape == (3, count * src.size(1), 20)
        assert mask.shape == (3, 1, 1, count * src.size(1))
        torch.testing.assert_close(mask[:, 0, 0], torch.cat([src.ne(1)] * count, 1))
        torch.testing.assert_close(memory, torch.cat(outputs).transpose(0, 1))


def test_attention_returned_for_alignment_sums_over_the_span():
    model = supernet().eval()
    src, prev, target = batch(LENGTHS)
    real = target.ne(1)
    for span in (-1, 1, 2):
        model.set_active_subnet(with_span(span, 3))
        with torch.no_grad():
            attention = model(src, None, prev, alignment_layer=1)[1]["attn"][0]
        assert attention.shape == (*prev.shape, src.size(1))
        torch.testing.assert_close(attention[real].sum(-1), torch.ones(int(real.sum())))
        assert not attention.masked_select(src.eq(1)[:, None]).any()


CASES = [
    (SMALL_SPACE, {"mos_routing": "none", "share_all_embeddings": False, **NORMS}),
    (SMALL_SPACE, {"mos_routing": "layer", "mos_linears": "all", "layernorm_embedding": True}),
    (HEAD_DIM_SPACE, {"mos_routing": "neuron", "mos_linears": "all", "decoder_learned_pos": True}),
]


@pytest.mark.parametrize(("space", "options"), CASES, ids=["none", "layer", "neuron"])
@torch.no_grad()
def test_incremental_equals_full_decoding(space, options):
    model = supernet(SearchSpace.from_dict(space), **options).eval()
    src, prev, target = batch(LENGTHS)
    real, beams = target.ne(1), torch.tensor([0, 0, 1, 1, 2, 2])
    shallow = False
    for seed in range(8):
        subnet = model.sample_subnet("incremental", seed)
        shallow |= subnet.encoder_layers == 1 and max(subnet.decoder_arbitrary_ende_attn) > 0
        full, encoder_out = logits(model, src, prev), model.encoder(src)
        torch.testing.assert_close(decode_stepwise(model, encoder_out, prev)[real], full[real], **TOLERANCE)
        expanded = model.encoder.reorder_encoder_out(encoder_out, beams)
        stepwise = decode_stepwise(model, expanded, prev[beams])
        torch.testing.assert_close(stepwise[real[beams]], full[beams][real[beams]], **TOLERANCE)
    assert shallow


@pytest.mark.parametrize("order", [[2, 0], [1], [1, 1, 2, 2], [0, 1, 2]], ids=str)
@torch.no_grad()
def test_caches_reordered_in_the_middle_of_decoding(order):
    """Sentences leave the batch or are repeated between two steps, as in beam search."""
    model = supernet(mos_routing="neuron").eval()
    model.set_active_subnet(with_span(1, 3))
    src, prev, _ = batch(((6, 6), (4, 6), (7, 6)))
    new_order, full, state = torch.tensor(order), logits(model, src, prev), {}
    encoder_out = model.encoder(src)
    for t in range(3):
        model.decoder(prev[:, : t + 1], encoder_out, state)
    model.decoder.reorder_incremental_state_scripting(state, new_order)
    encoder_out = model.encoder.reorder_encoder_out(encoder_out, new_order)
    for t in range(3, 6):
        step = model.decoder(prev[new_order, : t + 1], encoder_out, state)[0]
        torch.testing.assert_close(step[:, 0], full[new_order, t], **TOLERANCE)


def test_reorder_encoder_out_keeps_what_belongs_together():
    model = supernet().eval()
    model.set_active_subnet(with_span(2, 3))
    src, _, _ = batch(LENGTHS)
    with torch.no_grad():
        before = model.encoder(src, return_all_hiddens=True)
    order = torch.tensor([2, 2, 0])
    after = model.encoder.reorder_encoder_out(before, order)
    assert before.keys() == after.keys()
    for name in ("encoder_out", "encoder_states"):
        assert len(after[name]) == len(before[name]) > 0
        for old, new in zip(before[name], after[name], strict=True):
            torch.testing.assert_close(new, old[:, order])
    torch.testing.assert_close(after["encoder_padding_mask"][0], src.eq(1)[order])


ORDERS = {
    "within sentences": ([1, 0, 3, 3, 4, 5], 2),
    "a sentence leaves": ([1, 0, 5, 5], 2),
    "beams change sentence": ([0, 2, 3, 5, 4], 1),
    "beams leave": ([0, 2, 4], 1),
    "one row": ([3], 1),
}


@pytest.mark.parametrize("many_rows", [1, 10**6], ids=["products", "fused kernel"])
@pytest.mark.parametrize("name", ORDERS)
@torch.no_grad()
def test_beams_share_their_sentence(name, many_rows, use_kernels):
    """Beam search's rows: the memory is projected once a sentence, also after the batch has shrunk."""
    use_kernels(attention_queries=many_rows, attention_keys=3)  # of one step the fused kernel, of the next ones not
    order, beam = ORDERS[name]
    model = supernet(mos_routing="neuron").eval()
    model.set_active_subnet(with_span(1, 3))
    src, prev, _ = batch(((6, 6), (4, 6), (7, 6)))
    rows, new_order, state = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor(order), {}
    others = (prev[rows] - 4 + torch.tensor([0, 1, 0, 2, 0, 3])[:, None]) % 27 + 4  # beams differ, in words
    prev = torch.where(prev[rows] > 3, others, prev[rows])
    full = logits(model, src[rows], prev)
    encoder_out = model.encoder.reorder_encoder_out(model.encoder(src), rows)
    for t in range(3):
        step = model.decoder(prev[:, : t + 1], encoder_out, state)[0]
        torch.testing.assert_close(step[:, 0], full[:, t], **TOLERANCE)
    cache = model.decoder.layers[0].encoder_attn.cache(state)
    assert cache["k"].size(0) == 3 and cache["beam"] == 2
    if name == "within sentences":
        assert model.encoder.reorder_encoder_out(encoder_out, new_order) is encoder_out
    model.decoder.reorder_incremental_state_scripting(state, new_order)
    encoder_out = model.encoder.reorder_encoder_out(encoder_out, new_order)
    torch.testing.assert_close(encoder_out["encoder_out"][0], model.encoder(src)["encoder_out"][0][:, rows[new_order]])
    cache = model.decoder.layers[0].encoder_attn.cache(state)
    assert cache["beam"] == beam and cache["k"].size(0) * beam == len(order)
    for t in range(3, 6):
        step = model.decoder(prev[new_order, : t + 1], encoder_out, state)[0]
        torch.testing.assert_close(step[:, 0], full[new_order, t], **TOLERANCE)
    attention = model.decoder(prev[new_order], encoder_out, state, alignment_layer=1)[1]["attn"][0]
    assert attention.shape == (len(order), 1, src.size(1))


@pytest.mark.parametrize("room", [0, 2])
@torch.no_grad()
def test_caches_grow_past_their_room(room, use_kernels):
    use_kernels(cache_room=room)
    model = supernet(mos_routing="none").eval()
    src, prev, _ = batch(((6, 9), (4, 9)))
    torch.testing.assert_close(decode_stepwise(model, model.encoder(src), prev), logits(model, src, prev), **TOLERANCE)
